"""A folder that one run at a time writes to, and that is known again after it was removed or replaced.

The lock is the system's, on the folder itself: it goes with the process that holds it, however that ends. A
file in the folder says which process that is.
"""

import fcntl
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from .._files import Owner, remove_left_over, write_text
from .own_files import places

OWNER = ".geokernels-run"  # file that names the process that writes to the folder


@dataclass
class HeldFolder:
    """A folder to write to; ``path`` need not exist yet. As a context, it is given free in the end."""

    path: Path
    # patterns of every name that may be written, besides run.json and the checkpoint
    names: ClassVar[tuple[str, ...]] = ()
    _held: ClassVar[int | None] = None  # the folder, open
    _made: ClassVar[Sequence[Path]] = ()  # folders that were not there before, the innermost first

    def writes(self) -> tuple[str, ...]:
        """Patterns of the names that this run may write; see :mod:`geokernels.runs.own_files`."""
        return self.names

    def require_place(self) -> None:
        """Refuse what cannot be a folder that is written to, or is another run's now.

        Raises:
            ValueError: With what it is.
        """
        try:
            there = self.path.exists()
        except OSError as error:
            said = f"{str(self.path)[:40]}... is none: {error.strerror}"
            raise ValueError(f"--out must be a path that this system can have, {said}") from None
        if self.path.is_symlink() and not there:
            raise ValueError(f"--out must be a folder, {self.path} is a link to nothing")
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ValueError(f"--out must be a folder, {place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(f"--out must be a folder that can be written to, {place} is not")
        if self._held is None and there:
            if self._open():
                (self.path / OWNER).unlink(missing_ok=True)  # of a run that was killed
            self._release()

    def is_in_use(self) -> bool:
        """Whether another run writes to it, or may do so: where there are no locks, from another machine."""
        try:
            alone = self._open()
        except ValueError:
            return True
        except OSError:  # it is not there, or not to be opened, as whoever writes to it is told
            return False
        self._release()
        owner = None if alone else Owner.read(self.path / OWNER)
        return owner is not None and owner.host != Owner.this().host

    def hold(self) -> Self:
        """Make the folder, hold it for this run alone, and remove what killed runs left half written.

        Raises:
            ValueError: If another run writes to it.
        """
        missing = [place for place in (self.path, *self.path.parents) if not place.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        alone = self._open()
        self._made = missing
        with suppress(OSError):  # a full disk: then the run cannot be named, and says so when it writes
            write_text(self.path / OWNER, str(Owner.this()))
        for place in places(self.path, self.writes()):
            remove_left_over(place, alone=alone)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        """Give the folder free; one that was made for a run that wrote nothing goes again.

        Raises:
            FileNotFoundError: If the folder was removed meanwhile; also in place of another error.
        """
        try:
            if error is None or isinstance(error, Exception):
                self.require_there()
        finally:
            self.release()

    def release(self) -> None:
        """Give the folder free; one that was made for a run that wrote nothing goes again."""
        if self._held is None:
            return
        if self._is_there():
            (self.path / OWNER).unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for place in self._made:
                    place.rmdir()
        self._made = ()
        self._release()

    def file(self, name: str) -> Path:
        """Where to write a file, whose folder is made.

        Raises:
            FileNotFoundError: If the folder was removed, or moved away, since it was claimed.
        """
        self.require_there()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def require_there(self) -> None:
        """Refuse to go on if the folder was removed, or moved away, since it was claimed.

        Raises:
            FileNotFoundError: With what is lost.
        """
        if self._held is not None and not self._is_there():
            raise FileNotFoundError(
                f"--out {self.path} was removed or replaced while the run wrote to it; what was there is lost"
            )

    def _is_there(self) -> bool:
        """Whether the folder that is held is where it was."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._held))
        except OSError:
            return False

    def _open(self) -> bool:
        """Keep the folder open, by which it is known again; whether no other run can be writing to it.

        Raises:
            ValueError: If another run is.
        """
        self._release()
        self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self._free = weakref.finalize(self, os.close, self._held)
        owner = Owner.read(self.path / OWNER)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse(owner)
        except OSError:  # some network drives have no locks: there the file is all that tells
            if owner is not None and owner.runs():
                self._refuse(owner)
            return False
        return True

    def _refuse(self, owner: Owner | None) -> None:
        self._release()
        which = "another run" if owner is None else f"another run ({owner})"
        raise ValueError(f"--out must not be in use, {which} is writing to {self.path}") from None

    def _release(self) -> None:
        if self._held is not None:
            self._free()
            self._held = None
