"""``geokernels rerun``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import adapt, blend, edit, interpolate, morph, video
from .console import say, sentences, warn
from .options import Overwrite, Resume, Sets, out_option, path_argument
from .origin import require_inputs, words_of
from .settings import RECIPE
from .typed import option_names

RECORD, NAMED = "run.json", 5
TIMED = (".html", ".md", ".csv", ".json", ".jsonl")  # endings of files that have times in them
# parameters that are settings, which a record has whole: the options that were typed for them say no more
SETTINGS = {
    module.__name__.rpartition(".")[2]: {"recipe", "config_file", "sets", *module.OPTIONS.values()}
    for module in (blend, morph, video, adapt, edit, interpolate)
}
SETTINGS["video"] |= set(video.OF_FIT.values())
SETTINGS["adapt"] |= set(adapt.OF_INVERSION.values())


def rerun(
    run: Annotated[Path, path_argument("The folder of a finished run, or its run.json.")],
    out: Annotated[
        Path | None, out_option("Folder for the results (default: the run's with -rerun behind its name).")
    ] = None,
    sets: Sets = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Repeat a run as its run.json says: the same command, inputs, seeds and settings.

    On the same machine with the same versions the pictures are the same to the bit. With --set a setting may
    be another; everything else stays.
    """
    with sentences(rerun):
        from ..runs.record import read_record, require_record
        from ..runs.shards import WHOLE, shard_of

        path = (run / RECORD if run.is_dir() else run).absolute()
        if not path.is_file():
            raise ValueError(f"RUN must be a finished run, found no {RECORD} in {run}")
        try:
            record = read_record(path)
            require_record(record)
        except ValueError as error:
            raise ValueError(f"RUN {error}") from error
        words = _words(path, record, sets or [], {"resume": resume, "overwrite": overwrite})
        place = [f"--out={out or path.parent.with_name(f'{path.parent.name}-rerun')}"]
        place += ["--resume"] * resume + ["--overwrite"] * overwrite
        if record.get("shard", "") is None:  # the environment names no part of what was whole
            place.append(f"--shard={WHOLE}")
        _warn_of_other_versions(record)
    from . import app

    root, command = typer.main.get_command(app), record["command"].split()
    code = root.main([*command, *place, *words], prog_name="geokernels", standalone_mode=False)
    if code:
        raise typer.Exit(code)
    if not sets:
        made = shard_of(record.get("shard") or str(WHOLE)).folder(Path(place[0].partition("=")[2]))
        say(_compared(record["files"], made))


def _words(path: Path, record: dict, sets: list[str], switches: dict[str, bool]) -> list[str]:
    """What to type to repeat a run, besides where its results go.

    Raises:
        ValueError: If it cannot be repeated; says why.
    """
    from . import app

    if record["options"] is None:
        raise ValueError(f"RUN must be of a command, {path} was left by a run from Python")
    command = typer.main.get_command(app)
    for word in record["command"].split():
        command = getattr(command, "commands", {}).get(word)
    if command is None:
        raise ValueError(f"RUN must be of a command, {path} is of {record['command']!r}")
    names, options = option_names(command), record["options"]
    if sets and "sets" not in names:
        raise ValueError(f"--set goes with methods that have settings, {record['command']} has none")
    lacking = [name for name, given in switches.items() if given and name not in names]
    if lacking:
        raise ValueError(f"--{lacking[0]} goes with commands that have it, {record['command']} has none")
    if record["command"] in SETTINGS:
        if any(pair.partition("=")[0].strip().split(".")[-1] == RECIPE for pair in sets):
            raise ValueError("--set recipe changes nothing in a rerun, which has every setting of RUN")
        said = {names[name] for name in SETTINGS[record["command"]]}
        options = {name: value for name, value in options.items() if name not in said}
        sets = [f"--config={path}", *(f"--set={pair}" for pair in sets)]
    else:
        other = {pair.partition("=")[0].strip() for pair in sets}
        typed = [pair for pair in options.get("--set") or [] if pair.partition("=")[0].strip() not in other]
        options = {name: value for name, value in options.items() if name != "--set"}
        sets = [f"--set={pair}" for pair in (*typed, *sets)]
    inputs = [entry for entry in record["inputs"] if entry["option"] in options]
    require_inputs(inputs)
    return [*sets, *words_of(command, options, inputs)]


def _warn_of_other_versions(record: dict) -> None:
    from ..environment import machine, versions

    then = record["versions"] | record["machine"]
    now = versions() | machine(record["machine"]["device"] if _has(record["machine"]["device"]) else "cpu")
    other = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if other:
        warn(f"Warning: the run was made with {'; '.join(other)}: pictures may differ from its own.")


def _has(device: str) -> bool:
    import torch

    return device.startswith("cpu") or torch.cuda.is_available()


def _compared(before: dict[str, str], out: Path) -> str:
    """How the files of a rerun compare with those of the run."""
    from ..runs.record import read_record

    now = read_record(out / RECORD)["files"]
    names = [name for name in {**before, **now} if not name.endswith(TIMED)]
    other = [name for name in names if before.get(name) != now.get(name)]
    if not other:
        return f"All {len(names)} files but those that tell the time are the run's to the bit."
    more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
    return f"{len(other)} of {len(names)} files are not the run's: {', '.join(other[:NAMED])}{more}."
