"""Ways in which files are damaged: bits, lengths, blocks, and entries of what a run continues from."""

import json
import os
import random
from pathlib import Path

from geokernels._sealed import SEAL, load_sealed, save_sealed, unseal, write_sealed_json

KINDS = ("morph", "adapt", "video", "interpolate", "edit", "blend", "inversion")
CHECKPOINTS = ("checkpoint.pt", "results.partial.json", "results.jsonl", "samples.partial.json")


def damage(folder: Path, chance: random.Random) -> str:
    """Damage one file of a stopped run, its checkpoint in two cases of three; says what was done."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("geokernels-fault"))
    kept = [p for p in files if p.name in CHECKPOINTS]
    path = chance.choice(kept if kept and chance.random() < 0.67 else files)
    ways = [_flip, _flip, _truncate, _block, _empty]
    if path.suffix in (".pt", ".json"):
        ways += [_entry, _entry]
    way = chance.choice(ways)
    return f"{path.relative_to(folder)}: {way(path, chance)}"


def _flip(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    if not content:
        return "empty already"
    place = chance.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"bit {place} flipped"


def _truncate(path: Path, chance: random.Random) -> str:
    length = chance.randrange(path.stat().st_size + 1)
    os.truncate(path, length)
    return f"cut to {length} bytes"


def _block(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    first = chance.randrange(len(content) + 1)
    part = content[first : first + 512]
    content[first : first + 512] = bytes(len(part))
    path.write_bytes(content)
    return f"{len(part)} zeros from {first}"


def _empty(path: Path, chance: random.Random) -> str:
    path.write_bytes(b"")
    return "emptied"


def _entry(path: Path, chance: random.Random) -> str:
    """Take away or misshape an entry; the checksum is made right again, so that more than it must notice."""
    if path.suffix == ".pt":
        for kind in KINDS:
            try:
                state = load_sealed(path, kind=kind, remedy="")
            except ValueError:
                continue
            said = _misshape(state, chance)
            save_sealed(path, state, kind=kind)
            return said
        return _flip(path, chance)
    state = json.loads(path.read_text())
    if not isinstance(state, dict) or not isinstance(state.get(SEAL), dict):
        return _flip(path, chance)
    kind = state[SEAL]["kind"]
    state = unseal(state, path, kind=kind, remedy="")
    said = _misshape(state, chance)
    write_sealed_json(path, state, kind=kind)
    return said


def _misshape(state: dict, chance: random.Random) -> str:
    import torch

    places = list(_places(state))
    holder, key, name = chance.choice(places)
    value = holder[key]
    if isinstance(value, torch.Tensor) and chance.random() < 0.7:
        if value.is_floating_point() and chance.random() < 0.5:
            holder[key] = value.double() if value.dtype != torch.float64 else value.float()
            return f"{name} in another dtype"
        holder[key] = torch.zeros(*value.shape, 2, dtype=value.dtype)
        return f"{name} in another shape"
    if chance.random() < 0.5:
        del holder[key]
        return f"{name} taken away"
    holder[key] = 1.5 if isinstance(value, str) else "another type"
    return f"{name} of another type"


def _places(state: dict, name: str = ""):
    """Every entry of nested dictionaries."""
    for key, value in state.items():
        yield state, key, f"{name}{key}"
        if isinstance(value, dict):
            yield from _places(value, f"{name}{key}.")
