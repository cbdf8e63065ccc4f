"""``geokernels tune``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .console import Seen, console, say, sentences, showing, warn
from .options import out_option

if TYPE_CHECKING:
    from ..kernels.proof_cache import Record

UNDECIDED = 1  # the exit status where something could not be found out


def tune(
    device: Annotated[str, typer.Option(help="The GPU: cuda, or cuda:1 and so on.")] = "cuda:0",
    again: Annotated[bool, typer.Option("--again", help="Forget what is known, and find out anew.")] = False,
    json: Annotated[
        Path | None, out_option("File for the results; GEOKERNELS_PROOF=FILE goes by it.", "--json")
    ] = None,
) -> None:
    """Find out which GPU kernels are right and fast here, for all later runs.

    Otherwise the first operator on a GPU does it, once for an installation and a kind of GPU.
    """
    with sentences(tune):
        from .. import environment
        from ..kernels import proof, proof_cache
        from ..kernels.proof_cases import names
        from ..kernels.proof_child import BEGUN

        index, plan = _number(device), names()
        require_gpu(index)
        with showing(look=_seen, unit="kernels") as show:

            def told(name: str, doing: str) -> None:
                if json is not None and name and doing == BEGUN:  # what is known is kept if this is killed
                    proof_cache.write(json, proof_cache.key_of(index), proof.known(index))
                if name in plan:
                    show.update("kernels", Seen(plan.index(name), len(plan), unit="kernels"), label=name)

            record = proof.tune(index, again=again, told=told)
        if json is not None:
            proof_cache.write(json, proof_cache.key_of(index), record)
        _print(record)
        if not record.is_whole():
            for name, reason in record.open.items():
                warn(f"Not found out{f' of {name}' if name else ' of the rest'}: {reason}.")
            raise typer.Exit(UNDECIDED)
        say(f"Runs on {environment.gpu_name(index)} with this installation go by it from now on.")


def _seen(*_: object) -> Seen:
    return Seen(0, None)


def _number(device: str) -> int:
    """The number of a GPU, as it is typed."""
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if found is None:
        raise ValueError(f"device must be cuda, or cuda:1 and so on, got {device!r}")
    return int(found[1] or 0)


def require_gpu(index: int) -> None:
    """Refuse a GPU that is not there."""
    import torch

    if torch.version.hip is None and torch.version.cuda is None:
        raise ValueError("there is nothing to tune: this torch was built without CUDA")
    if not torch.cuda.is_available():
        raise ValueError("there is nothing to tune: torch sees no NVIDIA GPU")
    if index >= (count := torch.cuda.device_count()):
        raise ValueError(f"device must be one of the {count} GPUs that torch sees, got cuda:{index}")

    from ..kernels import proof

    if reason := proof.refuse(index):
        raise ValueError(f"there is nothing to tune: {reason}")


def _print(record: "Record") -> None:
    from ..environment import told_of

    table = Table("kernels", "found", title="kernels on this GPU")
    for name in sorted(record.verdicts):
        table.add_row(name, told_of(record.verdicts[name]))
    console().print(table)
