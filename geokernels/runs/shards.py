"""Which part of the work is this process's: as ``--shard`` says, or what torchrun or a SLURM array says.

Work is dealt out in units that are always done together: a batch of edits, a job, a trial. Unit ``k`` belongs
to shard ``k % count``, so that all shards together do exactly what one process would do.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# names of which one tells the number of a process, counted from 0, and one how many there are
TORCHRUN = ("RANK", "WORLD_SIZE")
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
SLURM_ENDS = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
INSTEAD = "give --shard I/N, which decides"
FOLDER = r"shard-(\d+)-of-(\d+)"


class Shard(NamedTuple):
    """Part ``index`` of ``count``, counted from 0; the only part is the whole."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def word(self) -> str | None:
        """``"I/N"``; None for the whole."""
        return None if self.count == 1 else str(self)

    def has(self, unit: int) -> bool:
        """Whether a unit of work belongs to it."""
        return unit % self.count == self.index

    def folder(self, out: Path) -> Path:
        """Where it is written: a folder of its own in ``out``, or ``out`` itself if it is the whole."""
        return out if self.count == 1 else out / f"shard-{self.index}-of-{self.count}"


WHOLE = Shard(0, 1)


def shard_of(given: str | None, environment: Mapping[str, str] | None = None) -> Shard:
    """The part that ``--shard`` names; where nothing is given, that of torchrun or SLURM, or the whole.

    Args:
        given: ``"I/N"`` or None.
        environment: Of the process, by default.

    Raises:
        ValueError: If it names no part, or the environment says half of one, or two different ones.
    """
    if given is not None:
        return parse(given)
    environment = os.environ if environment is None else environment
    torchrun, slurm = _told(environment, *TORCHRUN), _told(environment, *SLURM)
    if slurm is not None:
        _require_whole_array(environment, slurm)
    if torchrun is not None and slurm is not None and torchrun != slurm:
        raise ValueError(
            f"{' and '.join(TORCHRUN)} say part {torchrun}, {' and '.join(SLURM)} say part {slurm}: {INSTEAD}"
        )
    return torchrun or slurm or WHOLE


def parse(text: str) -> Shard:
    """The part that ``"I/N"`` names.

    Raises:
        ValueError: If it names none.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError(f"--shard must be I/N with I from 0 to N-1, such as 0/4, got {text!r}")
    return Shard(int(found[1]), int(found[2]))


def place_of(out: Path, shard: Shard) -> Path:
    """Where a part of what goes to ``out`` is written.

    Raises:
        ValueError: If there are parts of another number, which would not go together.
    """
    counts = {count for count in map(_count, shards_in(out)) if count != shard.count}
    if counts:
        count = min(counts)
        raise ValueError(
            f"--out must not mix parts of different numbers, {out} has parts of {count}, and this is "
            f"{shard.word or 'the whole'}: give --shard I/{count}, or choose another folder"
        )
    return shard.folder(out)


def shards_in(folder: Path) -> list[Path]:
    """The folders of parts in a folder, in order."""
    found = [path for path in folder.glob("shard-*-of-*") if re.fullmatch(FOLDER, path.name)]
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def _count(folder: Path) -> int:
    return int(re.fullmatch(FOLDER, folder.name)[2])


def _told(environment: Mapping[str, str], *names: str) -> Shard | None:
    """The part that two variables name; None where neither is set."""
    lacking = [name for name in names if name not in environment]
    if len(lacking) == len(names):
        return None
    if lacking:
        raise ValueError(f"{' and '.join(names)} must be set together, {lacking[0]} is not: {INSTEAD}")
    for name in names:
        if not re.fullmatch(r"\d{1,9}", environment[name]):
            raise ValueError(f"{name} must be a whole number, got {environment[name]!r}: {INSTEAD}")
    index, count = (int(environment[name]) for name in names)
    if index >= count:
        raise ValueError(
            f"{names[0]} must be counted from 0 and below {names[1]}, got {index} of {count}: {INSTEAD}"
        )
    return Shard(index, count)


def _require_whole_array(environment: Mapping[str, str], shard: Shard) -> None:
    """Refuse an array that is not numbered 0 to N-1: its tasks would be taken for other parts.

    Raises:
        ValueError: As whoever submits a few tasks of an array again must be told.
    """
    said = [environment.get(name) for name in SLURM_ENDS]
    if said not in ([None, None], ["0", str(shard.count - 1)]):
        raise ValueError(
            f"an array of {shard.count} tasks must be numbered 0-{shard.count - 1}, "
            f"{' and '.join(SLURM_ENDS)} say {said[0]} and {said[1]}: {INSTEAD}"
        )
