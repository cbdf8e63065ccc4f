"""The folder of a run: claimed before, and finished after, so that nothing is lost or half written."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch

from .._checks import reason_of
from .._files import checksums, read_json, write_json
from .._sealed import load_sealed, read_sealed_json, save_sealed, write_sealed_json
from ..environment import circumstances
from ..pipelines.run_state import FORMAT, require_format
from .held_folder import HeldFolder
from .own_files import discard, in_the_way, present

RECORD = "run.json"
NAMED = 3  # files that a refusal names
REMEDY = "start again with --overwrite"
MADE = "made"  # entry of a checkpoint: where it was made


@dataclass
class RunFolder(HeldFolder):
    """Where one run is written; ``path`` need not exist yet."""

    command: ClassVar[str]  # whose run it is
    checkpoint: ClassVar[str] = "checkpoint.pt"
    remedy: ClassVar[str] = "choose another folder, or add --overwrite"
    again: ClassVar[str] = REMEDY  # what to do about a checkpoint that is not as it was written
    replaces: ClassVar[bool] = False  # whether an earlier run is there still, which is to go
    origin: ClassVar[Mapping] = {"options": None, "inputs": []}  # what was typed, as the record keeps it
    _keep: ClassVar[tuple[Path, ...]] = ()

    def require(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder whose contents would be lost, or that has nothing to resume; changes nothing.

        Raises:
            ValueError: With the remedy.
        """
        if resume and overwrite:
            raise ValueError("give --resume or --overwrite, not both")
        self.require_place()
        finished, begun = self._record() is not None, self.begins()
        if resume and not begun:
            state = "is finished" if finished else "holds no checkpoint: begin it without --resume"
            raise ValueError(f"--resume needs an interrupted run in --out, {self.path} {state}")
        if resume:
            self._read()  # damage and other versions are refused before anything is loaded or computed
        blocked = next(in_the_way(self.path, (RECORD, self.checkpoint, *self.writes())), None)
        if blocked is not None:
            kind = "folder" if blocked.is_dir() else "file"
            raise ValueError(
                f"--out must have room for what the run writes, {blocked} is a {kind} in its way"
            )
        if resume or overwrite:
            return
        if finished or begun:
            kind, remedy = "a finished", "--overwrite to replace it"
            if (self.path / self.checkpoint).exists():
                kind, remedy = "an interrupted", "--resume to continue it, or --overwrite"
            raise ValueError(f"--out must not hold another run, {self.path} has {kind} one; add {remedy}")
        others = [str(p.relative_to(self.path)) for p in present(self.path, (RECORD, *self.writes()))]
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            raise ValueError(
                f"--out must hold no other files that the run would replace, {self.path} has "
                f"{', '.join(others[:NAMED])}{more}; {self.remedy}"
            )

    def claim(self, *, resume: bool, overwrite: bool, keep: Collection[Path] = ()) -> Self:
        """Hold the folder for this run alone, after :meth:`require`.

        With ``overwrite`` an earlier run stays until :meth:`replace` is called, since input may yet be
        refused. As a context, the folder is given free in the end.

        Args:
            resume: Whether to continue the run that is there.
            overwrite: Whether to replace what is there.
            keep: Files that are read later on, which stay even if the earlier run wrote them.

        Raises:
            ValueError: With the remedy; nothing was changed.
        """
        self.require(resume=resume, overwrite=overwrite)
        self.hold()
        self._keep, self.replaces = tuple(keep), overwrite
        return self

    def replace(self) -> None:
        """Remove the earlier run that :meth:`claim` left."""
        self.clear(self._keep)
        self.replaces = False

    def begins(self) -> bool:
        """Whether there is a run to be continued."""
        return self.kept.exists()

    def clear(self, keep: Collection[Path] = ()) -> None:
        """Remove an earlier run, but no other file; what was changed since stays, too."""
        record = self._record()
        if record is not None or self.begins():
            discard(self.path, self.written(), self.names, keep=keep)
        if record is not None:
            (self.path / RECORD).unlink()
        (self.path / self.checkpoint).unlink(missing_ok=True)

    def written(self) -> dict[str, str]:
        """Checksums, by name, of what an earlier run says that it wrote."""
        record = self._record() or {}
        return texts(record.get("files", record.get("sha256")))  # the latter of geokernels 0.1.0

    def end(self, record: dict, names: Collection[str]) -> None:
        """Write, last, ``run.json`` with the checksums of all files of these names; the checkpoint goes."""
        write_json(self.file(RECORD), {**record, **self.origin, "files": checksums(self.path, names)})
        (self.path / self.checkpoint).unlink(missing_ok=True)
        self.require_there()

    def save(self, state: dict, made: Mapping | None = None) -> None:
        """Write the checkpoint, whole or not at all; as JSON, if it is called so.

        Args:
            state: All that a run continues from.
            made: Where it was made; here and now if not given.
        """
        write = write_sealed_json if self._is_json else save_sealed
        kept = {"format": FORMAT, **state, MADE: made or circumstances()}
        write(self.file(self.checkpoint), kept, kind=self.command)

    @property
    def kept(self) -> Path:
        """What a run is continued from."""
        return self.path / self.checkpoint

    def load(self, device: str = "cpu") -> dict:
        """Read the checkpoint; no code in it is run.

        Raises:
            ValueError: If it is damaged, another command's, or of another version of geokernels.
        """
        state = self._read(device)
        with self.as_written():
            warn_of_other_circumstances(state.pop(MADE))
        return state

    def _read(self, device: str = "cpu") -> dict:
        path = self.kept
        if self._is_json:
            state = read_sealed_json(path, kind=self.command, remedy=self.again)
        else:
            state = load_sealed(path, kind=self.command, remedy=self.again, device=device)
        require_format(state, remedy=self.again)
        return state

    @property
    def _is_json(self) -> bool:
        return self.checkpoint.endswith(".json")

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Say that the checkpoint is unfit where its entries are not as they were written.

        Raises:
            ValueError: In place of what Python and torch raise of such entries.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{self.path / self.checkpoint} does not hold what this version of geokernels writes "
                f"({reason_of(error)}); {self.again}"
            ) from error

    def _record(self) -> dict | None:
        """The record of a finished run; None where there is none, or one of another program."""
        try:
            record = read_json(self.path / RECORD)
        except (ValueError, OSError):
            return None
        ours = isinstance(record, dict) and {"command", "versions"} <= record.keys()
        return record if ours and not {"files", "sha256"}.isdisjoint(record) else None


def listed(path: Path, *keys: str) -> list[dict]:
    """The objects of a list in a JSON file, under these keys; of a damaged file, none."""
    try:
        entries = read_json(path)
    except (ValueError, OSError):
        return []
    for key in keys:
        entries = entries.get(key) if isinstance(entries, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def texts(entries: object) -> dict[str, str]:
    """Of a mapping, what maps texts to texts; whatever a damaged record has instead is nothing."""
    if not isinstance(entries, Mapping):
        return {}
    return {
        name: value for name, value in entries.items() if isinstance(name, str) and isinstance(value, str)
    }


def warn_of_other_circumstances(before: dict) -> None:
    """Warn where a run that is continued was begun elsewhere: what it ends with may differ in rounding."""
    now = circumstances()
    differ = [name for name in now if before.get(name) != now[name]]
    if differ:
        then, here = (", ".join(f"{name} {of.get(name)}" for name in differ) for of in (before, now))
        warnings.warn(
            f"the run was begun with {then} and continues with {here}: its result may differ in rounding "
            "from that of a run in one piece",
            stacklevel=4,
        )
