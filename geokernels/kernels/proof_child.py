"""The process that looks at the kernels for another one: ``python -m geokernels.kernels.proof_child``.

It says what it begins and what it has found, a line of JSON each, to the pipe it is given. What a kernel does
to it, it does to no other process.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import torch

from . import proof_cases, proof_checks
from .proof_cache import Verdict, today
from .proof_cases import DTYPES, Operator
from .proof_checks import Clock, Inputs
from .proof_runner import BROKEN, LIMIT
from .proof_sizes import precision_of

BEGUN = "start"  # what is done first to each
UNAVAILABLE = 75  # the status of a child that got no GPU to look at
OF_CIRCUMSTANCES = (
    *("out of memory", "alloc_failed", "not_initialized", "cudaerrormemoryallocation"),
    *("busy or unavailable", "no cuda-capable device", "no space left on device", "disk quota"),
)
OF_THE_GPU = ("cuda error", "cuda driver error", "cuda_error", "device-side assert", "illegal memory access")


class InconclusiveError(Exception):
    """Nothing can be said of what was looked at, for a reason that is not its own."""


def is_of_circumstances(error: BaseException) -> bool:
    """Whether an error says nothing of the kernel that it came from."""
    if isinstance(error, MemoryError | OSError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in OF_CIRCUMSTANCES)


def _guarded(run: Callable, *args):
    """Run what is not looked at itself: whatever is wrong with it says nothing."""
    try:
        return run(*args)
    except Exception as error:
        raise InconclusiveError(f"the definition failed: {_told(error)}") from error


def _told(error: BaseException) -> str:
    first = str(error).strip().split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def examine(
    operator: Operator,
    implementation: str,
    precisions: Mapping[str, tuple[torch.dtype, ...]],
    device: str,
    clock: Clock,
    doing: Callable[[str], None] = lambda what: None,
) -> Verdict:
    """All checks of one implementation.

    Args:
        operator: The operator.
        implementation: Its name.
        precisions: What dtypes to look at, by the precision they stand for.
        device: Where.
        clock: What takes times.
        doing: Called with each thing that is begun.

    Raises:
        InconclusiveError: If circumstances do not let it be examined.
    """
    wrong: dict[str, str] = {}
    speedups: dict[str, list[float]] = {}
    for precision, dtypes in precisions.items():
        for dtype in dtypes:
            if precision not in wrong and (found := _wrong(operator, implementation, dtype, device, doing)):
                wrong[precision] = found
        if precision not in wrong:
            for size, ratios in _times(operator, implementation, dtypes[0], device, clock, doing):
                speedups[f"{size} {precision}"] = ratios
    return Verdict(today(), wrong, speedups)


def _wrong(operator: Operator, implementation: str, dtype, device: str, doing) -> str:
    refuse, run = operator.implementations[implementation]
    for name, make in operator.problems.items():
        inputs = _guarded(lambda make=make: make().at(dtype, device))
        if refuse(inputs.tensors, inputs.settings):
            continue
        what = f"{str(dtype).removeprefix('torch.')}, {name}"
        doing(what)
        leaves = operator.leaves
        try:
            found = proof_checks.find_wrong_values(operator.definition, run, inputs, leaves)
            found = found or proof_checks.find_wrong_memory(run, inputs, leaves)
        except Exception as error:
            if is_of_circumstances(error):
                raise InconclusiveError(_told(error)) from error
            if any(words in str(error).lower() for words in OF_THE_GPU):
                raise  # nothing else can be looked at in this process
            _guarded(proof_checks.computed, operator.definition, inputs.whole(), ())
            found = _told(error)
        if found:
            return f"{what}: {found}"
    return ""


def _times(
    operator: Operator, implementation: str, dtype, device: str, clock: Clock, doing
) -> Iterator[tuple[str, list[float]]]:
    refuse, run = operator.implementations[implementation]
    for size, makers in operator.timed.items():
        ratios = []
        for number, make in enumerate(makers):
            inputs: Inputs = _guarded(lambda make=make: make().at(dtype, device))
            if refuse(inputs.tensors, inputs.settings):
                continue
            doing(f"{str(dtype).removeprefix('torch.')}, time of {size}, {number + 1} of {len(makers)}")
            try:
                ratios.append(proof_checks.speedup(operator.definition, run, inputs, operator.leaves, clock))
            except Exception as error:
                if is_of_circumstances(error):
                    raise InconclusiveError(_told(error)) from error
                raise
        if ratios:
            yield size, ratios


def look(
    skip: list[str],
    say: Callable[..., None],
    device: str,
    clock: Clock,
    operators: Mapping[str, Operator] = proof_cases.OPERATORS,
) -> None:
    """Examine all but ``skip``, and say what is found."""
    plan = proof_cases.names()
    say(plan=plan)
    for name in plan:
        if name in skip:
            continue
        implementation, _, operator = name.partition(" ")
        precisions = {
            precision: dtypes
            for precision, dtypes in DTYPES.items()
            if all(precision_of(operator, dtype) == precision for dtype in dtypes)
        }

        def doing(what: str, name: str = name) -> None:
            say(name=name, doing=what)

        doing(BEGUN)
        try:
            verdict = examine(operators[operator], implementation, precisions, device, clock, doing)
        except InconclusiveError as reason:
            say(name=name, open=str(reason))
        else:
            say(name=name, verdict=verdict._asdict())
    say(done=True)


def main(arguments: list[str]) -> int:
    """Look at the GPU that is visible; the status says whether it could be looked at to the end."""
    *skip, report = arguments
    file = int(report.removeprefix("--report="))
    os.set_inheritable(file, False)
    _end_with_parent()

    def say(**what) -> None:
        signal.alarm(int(LIMIT) + 30)
        os.write(file, (json.dumps(what) + "\n").encode())

    try:
        torch.zeros(1, dtype=torch.float32, device="cuda").cpu()
    except Exception as error:  # of whatever kind, no kernel of ours has run
        print(_told(error), flush=True)
        return UNAVAILABLE
    try:
        look(skip, say, "cuda", proof_checks.stopwatch("cuda"))
    except Exception as error:
        print(_told(error), flush=True)
        # without the ends of objects on a GPU that nobody can use
        os._exit(BROKEN if any(words in str(error).lower() for words in OF_THE_GPU) else 1)
    return 0


def _end_with_parent() -> None:
    """End when whoever started this does, and in any case when nothing has been said for long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(LIMIT) + 30)

    def watch() -> None:
        while os.read(0, 1):  # nobody writes: it returns when the other end is closed
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
