"""What PTX loads and stores with no barrier of the block in between.

Triton lets warps that hold the same part of a tile load it each for itself, and only one of them store it: a
warp that comes late reads what was meant to come after. Layout conversions and reductions bring barriers by
chance, which another version of Triton need not do.
"""

import re
from typing import NamedTuple

BARRIER = re.compile(r"\bbar(rier)?(\.cta)?\.(sync|red)\b")
POINTER = re.compile(r"ld\.param\.[bu]64\s+(%rd\d+), \[\w+_param_(\d+)\]")
LOAD = re.compile(r"\bld\.global[.\w:]*\s+.*\[\s*(%rd\d+)|\bcp\.async[.\w]*\s+\[.*?\], \[\s*(%rd\d+)")
STORE = re.compile(r"\b(?:st|red|atom)\.global[.\w]*\s+(?:[^\[]*,\s*)?\[\s*(%rd\d+)")
LABEL = re.compile(r"^\$?(\$L\w+):")
BRANCH = re.compile(r"(@!?%p\d+\s+)?\bbra(?:\.uni)?\s+(\$L\w+)")


class Step(NamedTuple):
    """What an instruction does to memory, and to where control may go from it."""

    kind: str  # barrier, load, store or none
    pointers: frozenset[int]
    next: tuple[int, ...]


def origins(lines: list[str]) -> dict[str, set[int]]:
    """Which pointers among the arguments each 64-bit register may come from."""
    found: dict[str, set[int]] = {}
    moves = []
    for line in lines:
        if argument := POINTER.search(line):
            found.setdefault(argument[1], set()).add(int(argument[2]))
        elif not re.search(r"\b(ld|st)\.", line):
            to, *given = re.findall(r"%rd\d+", line) or [""]
            moves.append((to, given))
    while True:
        size = sum(map(len, found.values()))
        for to, given in moves:
            for one in given:
                if one in found:
                    found.setdefault(to, set()).update(found[one])
        if size == sum(map(len, found.values())):
            return found


def steps(ptx: str) -> list[Step]:
    """The instructions that count, with those that may follow each."""
    lines = [line.split("//")[0] for line in ptx.splitlines()]
    of_register = origins(lines)
    at_label = {label[1]: i for i, line in enumerate(lines) if (label := LABEL.match(line.strip()))}
    made = []
    for i, line in enumerate(lines):
        after = (i + 1,) if i + 1 < len(lines) else ()
        kind, register = "none", None
        if BARRIER.search(line):
            kind = "barrier"
        elif access := LOAD.search(line):
            kind, register = "load", access[1] or access[2]
        elif access := STORE.search(line):
            kind, register = "store", access[1]
        elif branch := BRANCH.search(line):
            after = (at_label[branch[2]], *(after if branch[1] else ()))
        elif re.search(r"^\s*(ret|exit);", line):
            after = ()
        made.append(Step(kind, frozenset(of_register.get(register, ())), after))
    return made


def unordered(ptx: str) -> list[tuple[int, str]]:
    """Arguments, by their place, that some path loads and stores with no barrier in between."""
    program = steps(ptx)
    # of the paths that reach a step: pointers loaded, and stored, since the last barrier
    reached: dict[int, tuple[frozenset, frozenset]] = {0: (frozenset(), frozenset())}
    waiting, wrong = [0], set()
    word = "{} and then {}, with no barrier in between".format
    while waiting:
        at = waiting.pop()
        loaded, stored = reached[at]
        step = program[at]
        if step.kind == "barrier":
            loaded = stored = frozenset()
        elif step.kind == "load":
            wrong |= {(i, word("stored", "loaded")) for i in step.pointers & stored}
            loaded |= step.pointers
        elif step.kind == "store":
            wrong |= {(i, word("loaded", "stored")) for i in step.pointers & loaded}
            stored |= step.pointers
        for to in step.next:
            before = reached.get(to)
            both = (loaded, stored) if before is None else (before[0] | loaded, before[1] | stored)
            if both != before:
                reached[to] = both
                waiting.append(to)
    return sorted(wrong)
