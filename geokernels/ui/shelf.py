"""The runs of a page on the disk, which is all that a page knows of them: a reload forgets nothing.

``OUT/0007-morph`` is the folder of a run, as its command writes it. ``OUT/.ui/0007-morph`` has what the page
keeps beside it: ``asked.json``, pictures that were handed in, what the command printed, how far it has come.
"""

import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from .._files import read_json, write_json
from ..runs.folder import RECORD, RunFolder
from ..runs.worker import PROGRESS

KEPT, ASKED, LOG, INPUTS = ".ui", "asked.json", "log.txt", "inputs"
WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"
GOING = (WAITING, RUNNING)
NAME = re.compile(r"\d{4,}-[a-z]+")
ENDED_UNDER_IT = "the page's server ended before the run did"


class Asked(NamedTuple):
    """A run that was asked for.

    Attributes:
        name: Of its folder.
        command: Which command.
        said: What was asked, by option.
        words: What is typed behind the command, besides where it is written.
        state: One of WAITING, RUNNING, FINISHED, STOPPED and FAILED.
        reason: Why it failed or stopped, in a sentence.
        at: When it was asked for.
    """

    name: str
    command: str
    said: dict[str, Any]
    words: list[str]
    state: str
    reason: str
    at: str


class Shelf:
    """All runs in a folder.

    Args:
        out: The folder.
    """

    def __init__(self, out: Path):
        self.out = out

    def of(self, name: str) -> Path:
        """Where a run is written."""
        return self.out / name

    def kept(self, name: str) -> Path:
        """What the page keeps of a run."""
        return self.out / KEPT / name

    def find(self, name: object) -> Asked | None:
        """A run as it stands; None where there is none: what came from outside is held to a pattern here."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return None
        try:
            return Asked(**(_object(self.kept(name) / ASKED) or {}))
        except TypeError:  # not as it was written
            return None

    def all(self) -> list[Asked]:
        """All runs, the newest first."""
        found = [self.find(path.parent.name) for path in (self.out / KEPT).glob(f"*/{ASKED}")]
        runs = [asked for asked in found if asked is not None]
        return sorted(runs, key=lambda asked: (int(asked.name.split("-")[0]), asked.name), reverse=True)

    def add(self, command: str, said: Mapping[str, Any], words: list[str], name: str) -> Asked:
        """Keep what was asked for; ``name`` is one that :meth:`begin` gave."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        asked = Asked(name, command, dict(said), words, WAITING, "", now)
        self.write(asked)
        return asked

    def begin(self, command: str) -> str:
        """A name that no run has had yet, whose place is made."""
        number = 1 + max((int(name.split("-")[0]) for name in self._used()), default=0)
        while True:
            name = f"{number:04}-{command}"
            try:
                self.kept(name).mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return name

    def _used(self) -> list[str]:
        places = [*self.out.glob("*"), *(self.out / KEPT).glob("*")]
        return [path.name for path in places if NAME.fullmatch(path.name)]

    def take(self, name: str, parameter: str, file: Path) -> Path:
        """Keep a picture that was handed in, by the name that it had."""
        to = self.kept(name) / INPUTS / parameter / file.name
        to.parent.mkdir(parents=True)
        shutil.copyfile(file, to)
        return to

    def drop(self, name: str) -> None:
        """Forget a place that :meth:`begin` made, and that nothing came of."""
        shutil.rmtree(self.kept(name))

    def write(self, asked: Asked) -> None:
        """Keep a run as it stands."""
        write_json(self.kept(asked.name) / ASKED, asked._asdict())

    def end(self, asked: Asked, state: str, reason: str = "") -> None:
        """Say how a run ended."""
        self.write(asked._replace(state=state, reason=reason))

    def after_a_restart(self) -> None:
        """Say of runs whose server ended under them that they are stopped, or finished if they are."""
        for asked in self.all():
            if asked.state in GOING:
                ended = self.record(asked.name) is not None
                self.end(asked, *((FINISHED,) if ended else (STOPPED, ENDED_UNDER_IT)))

    def record(self, name: str) -> dict | None:
        """What a finished run says of itself."""
        return _object(self.of(name) / RECORD)

    def progress(self, name: str) -> dict | None:
        """How far a run has come; None where it has not begun."""
        return _object(self.kept(name) / PROGRESS)

    def log(self, name: str) -> str:
        """What the command printed."""
        path = self.kept(name) / LOG
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""

    def begun(self, name: str) -> bool:
        """Whether a run left something to go on with."""
        return (self.of(name) / RunFolder.checkpoint).exists()


def _object(path: Path) -> dict | None:
    """What a file of JSON holds; None where there is none, or no object in it."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
