"""Files that are either whole or not there: written under a temporary name, then renamed."""

import csv
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of disks
AHEAD = 2**20  # letters of a JSON file that are read at once
SPACE = re.compile(r"[ \t\n\r]*")  # as JSON has it
PARTIAL = r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{16}\.partial(\.\w+)?"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The temporary file is there already, empty: made exclusively, under a name nobody can foresee, so that no
    link planted there is followed. What is renamed has the mode of a new file, whoever wrote it.

    Raises:
        FileNotFoundError: If the folder is removed meanwhile.
        OSError: If the disk is full; names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays, because writers choose the format by it
    partial = path.with_name(_unforeseen(path.suffix))
    mode = _make(partial)
    try:
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:  # safetensors writes for its owner alone
            partial.chmod(mode)
        os.replace(partial, path)
    except Exception as error:
        if path.parent.is_dir():
            # Pillow's own errors of writing have no number
            if isinstance(error, OSError) and error.errno in (None, *FULL):
                raise OSError(f"{path} could not be written: {error.strerror or error}") from error
            raise
        raise FileNotFoundError(f"{path.parent} was removed while {path.name} was written to it") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def give_new_modes(files: Iterable[Path]) -> None:
    """Give files that a library wrote, some for its owner alone, the mode of a new file."""
    for path in files:
        probe = path.with_name(_unforeseen(""))
        path.chmod(_make(probe))
        probe.unlink()


def _make(path: Path) -> int:
    """Make an empty file where there is none, not even a link; returns its mode."""
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o666)
    mode = stat.S_IMODE(os.fstat(file).st_mode)
    os.close(file)
    return mode


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, for its owner alone, removed with all it holds in the end."""
    scratch = parent / _unforeseen("")
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_left_over(folder: Path, *, alone: bool) -> None:
    """Remove what writers that were killed left unfinished in ``folder``; not below it.

    Args:
        folder: Where; links in it are not followed.
        alone: Whether nobody else can be writing to it: then what other machines left goes too.
    """
    for path in folder.iterdir():
        written_by = re.fullmatch(PARTIAL, path.name)
        if written_by is None:
            continue
        here = written_by["host"] == _host()
        if (here and _runs(int(written_by["pid"]))) or not (here or alone):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _unforeseen(suffix: str) -> str:
    return f".{_host()}-{os.getpid()}-{secrets.token_hex(8)}.partial{suffix}"


def _host() -> str:
    """A word for this machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class Owner(NamedTuple):
    """A process that something belongs to."""

    pid: int
    host: str

    @classmethod
    def this(cls) -> "Owner":
        """This process."""
        return cls(os.getpid(), platform.node())

    @classmethod
    def read(cls, path: Path) -> "Owner | None":
        """The process that a file names as :meth:`__str__` does; None for any other text."""
        try:
            said = re.fullmatch(r"process (\d{1,9}) on (\S*)", path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return said and cls(int(said[1]), said[2])

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def runs(self) -> bool:
        """Whether it is another process of this machine, and has not ended."""
        return self.host == platform.node() and self.pid != os.getpid() and _runs(self.pid)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table row by row; a cell that is None is empty."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as indented JSON; refuses NaN and infinities, which JSON has no words for."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a JSON file says.

    Args:
        path: The file.
        object_of: Makes something else of an object's pairs, as soon as they are read.

    Raises:
        ValueError: If it is damaged; names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=object_of)
    except ValueError as error:  # of the bytes, or of what they say
        raise ValueError(f"{path} must be JSON in UTF-8: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} must be JSON that is not nested hundreds of times") from None


def read_json_entries(
    path: str | Path, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The same of an object with many entries: memory holds the text of one, besides what is read ahead.

    Raises:
        ValueError: If the file is damaged; names the file.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            return dict(_Entries(file, json.JSONDecoder(object_pairs_hook=object_of)))
    except (ValueError, RecursionError):
        return read_json(path, object_of)  # no object, or damaged: this says what is wrong, and where


class _Entries:
    """The entries of a JSON object, one after the other.

    Attributes:
        text: What was read ahead.
        at: Where it goes on.
    """

    def __init__(self, file: TextIO, decoder: json.JSONDecoder):
        self.file, self.decoder, self.text, self.at = file, decoder, "", 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        if self._next() != "}":
            yield self._entry()
            while self._next() == ",":
                self._take(",")
                yield self._entry()
        self._take("}")
        if self._next():
            raise ValueError("something follows")

    def _entry(self) -> tuple[str, Any]:
        if self._next() != '"':
            raise ValueError("no name")
        name = self._value()
        self._take(":")
        return name, self._value()

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except ValueError:  # of text that is cut off, or for good
                if not self._more():
                    raise
                continue
            length = end - self.at
            if end < len(self.text) or not self._more():  # a number may go on in what is not read yet
                self.at += length
                return value

    def _take(self, sign: str) -> None:
        if self._next() != sign:
            raise ValueError(f"no {sign}")
        self.at += 1

    def _next(self) -> str:
        """The next letter, "" at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on; whether there was more."""
        more = self.file.read(AHEAD)
        self.text, self.at = self.text[self.at :] + more, 0
        return bool(more)


def sha256(path: str | Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in ``folder``, by name."""
    return {name: sha256(folder / name) for name in names}
