"""Machine code of NVIDIA GPUs as ``cuobjdump --dump-sass`` prints it: its loops, and what is in them.

A kernel's code is a graph of instructions. What an iteration costs at least is the shortest way round through
instructions that it has; rare branches, wherever the compiler has put them, are longer.
"""

import re
from collections import Counter, deque
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)
DOUBLE = re.compile(r"^(DADD|DMUL|DFMA|DSETP|DMNMX)|\.F64")
KINDS = {"loads": "LDG", "shuffles": "SHFL", "multiply-adds": "FFMA", "barriers": "BAR"}
LOAD, STORE, TO_SHARED, PRODUCT = "LDG", "STS", "LDGSTS", "HMMA"


class Instruction(NamedTuple):
    """One instruction: its address, its predicate or "", its code, and what it works on."""

    address: int
    predicate: str
    code: str
    operands: str

    @property
    def target(self) -> int:
        """The address that is last among the operands."""
        return int(re.findall(r"0x[0-9a-f]+", self.operands)[-1], 16)

    def is_a(self, code: str) -> bool:
        """Whether it is of that kind: all of its name, or all before a dot."""
        return self.code == code or self.code.startswith(code + ".")


class Code:
    """The instructions of a kernel, by number.

    Args:
        text: The part of a listing that is the kernel's.
    """

    def __init__(self, text: str):
        self.instructions = [
            Instruction(int(address, 16), predicate, code, operands)
            for address, predicate, code, operands in LINE.findall(text)
        ]
        self.numbers = {each.address: number for number, each in enumerate(self.instructions)}

    def where(self, code: str) -> list[int]:
        """The numbers of all instructions of a kind."""
        return [number for number, each in enumerate(self.instructions) if each.is_a(code)]

    @cached_property
    def following(self) -> list[list[int]]:
        """Which instructions may come after each; a subroutine is left out, as if it had returned at once."""
        joins: dict[str, int] = {}  # where a barrier of convergence, opened last, goes on
        following = []
        for number, each in enumerate(self.instructions):
            after = [number + 1] if number + 1 < len(self.instructions) else []
            if each.is_a("BSSY"):
                joins[each.operands.split(",")[0]] = each.target
            if each.is_a("BSYNC"):
                after = [self.numbers.get(joins.get(each.operands.strip(), -1), number + 1)]
            elif each.is_a("BRA") and not each.code.startswith("BRA.DIV"):  # a warp that has diverged is rare
                # perhaps under a second predicate, which stands among the operands
                always = not each.predicate and not re.match(r"!?U?P\d", each.operands)
                after = [self.numbers[each.target], *([] if always else after)]
            elif each.code in ("EXIT", "RET.REL.NODEC", "RET.ABS.NODEC") and not each.predicate:
                after = []
            following.append(after)
        return following

    def way(self, start: int, end: int) -> list[Instruction]:
        """What is executed on the shortest way from one instruction to another, the latter left out.

        From an instruction to itself it goes round; the way is empty where there is none.
        """
        came: dict[int, int] = {}
        waiting = deque([start])
        while waiting and end not in came:
            here = waiting.popleft()
            for after in self.following[here]:
                if after not in came:
                    came[after] = here
                    waiting.append(after)
        if end not in came:
            return []
        way = [came[end]]
        while way[-1] != start:
            way.append(came[way[-1]])
        return [self.instructions[number] for number in reversed(way)]

    def loops(self) -> list[tuple[int, int]]:
        """First and last instruction of what branches backward enclose."""
        found = {}
        for number, each in enumerate(self.instructions):
            if each.is_a("BRA") and self.numbers[each.target] < number:
                first = self.numbers[each.target]
                found[first] = max(number, found.get(first, 0))
        return sorted(found.items())

    def loops_with(self, *codes: str) -> list[list[Instruction]]:
        """The innermost of the loops that hold an instruction of each kind."""
        places = [self.where(code) for code in codes]
        holding = [
            (first, last)
            for first, last in self.loops()
            if all(any(first <= place <= last for place in of_code) for of_code in places)
        ]
        return [
            self.instructions[first : last + 1]
            for first, last in holding
            if not any((first, last) != other and first <= other[0] and other[1] <= last for other in holding)
        ]


def iteration(code: Code) -> Counter | None:
    """Kinds of instructions on the shortest way round through two barriers that agree, if there is one."""
    barriers = code.where("BAR.RED")
    ways = []
    for one, other in combinations(barriers, 2):
        there, back = code.way(one, other), code.way(other, one)
        if there and back:
            ways.append(there + back)
    if not ways:
        return None
    counts = Counter()
    for each in min(ways, key=len):
        counts["instructions"] += 1
        counts["double"] += bool(DOUBLE.search(each.code))
        for name, kind in KINDS.items():
            counts[name] += each.is_a(kind)
    return counts


def loads_in_flight(code: Code) -> list[int]:
    """Of each loop that brings numbers to the tensor cores: most loads before a store waits for them.

    Copies that go past the registers wait for none, and count as all.
    """
    found = []
    for loop in code.loops_with(PRODUCT, LOAD) + code.loops_with(PRODUCT, TO_SHARED):
        most = now = 0
        for each in loop:
            now += each.is_a(LOAD)
            if each.is_a(TO_SHARED):
                most = max(most, 16)
            if each.is_a(STORE):
                most, now = max(most, now), 0
        found.append(most)
    return found
