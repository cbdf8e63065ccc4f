"""Which kernels are trusted on a GPU: those that were seen there to be right, and faster than the definition.

The first operator on a GPU asks. The answer is known in this process, or read from a file of an earlier one,
or found out once, in a child process (proof_child.py), while other processes wait. It then stays: results do
not change in the middle of a run. While torch.compile traces, and while a CUDA graph is captured, nothing is
found out: what is not known then is the definition.
"""

import contextlib
import logging
import os
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .._torch_internals import constant_while_compiling, is_exporting
from . import native, proof_cache, proof_runner, triton
from .proof_cache import Record, Verdict
from .proof_job import Job
from .proof_runner import Outcome
from .proof_sizes import CLASSES, class_of

log = logging.getLogger("geokernels")

VARIABLE = "GEOKERNELS_PROOF"
LEISURE = 8 * proof_runner.LIMIT  # seconds for a look that somebody has asked for
PATIENCE = 2 * proof_runner.LIMIT + 60  # seconds to wait for a process that is at it
FASTER = 1.1  # than the definition, at every size of a class; less is noise
STARTED = time.time()  # this process, more or less
AROUND = 600.0  # seconds within which the processes of a job start; other jobs may be called the same
IMPLEMENTATIONS = ("native", "triton")
DEFINITION = ("reference", *IMPLEMENTATIONS)  # what comes after it runs where it refuses: a named precision

Orders = dict[tuple[str, str], tuple[str, ...]]  # by operator and class of size and precision


class Conclusion(NamedTuple):
    """What a process goes by on one GPU.

    Attributes:
        orders: What is asked first where that is not the definition.
        record: All that is known.
        reason: Why something is not, or an empty word.
    """

    orders: Orders
    record: Record = Record()
    reason: str = ""


_concluded: dict[int, Conclusion] = {}
_lock = threading.Lock()
_said: set[str] = set()


def _renew_lock() -> None:
    # another thread may have had it
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def order(operator: str, *tensors: Tensor) -> tuple[str, ...]:
    """Which implementations of an operator to ask on the GPU of its tensors, and in which order."""
    x = tensors[0]
    if operator not in CLASSES or not _is_on_gpu(x) or is_exporting():
        return DEFINITION  # a program that is exported runs elsewhere
    asked = operator, class_of(operator, *tensors)
    if torch.compiler.is_compiling():
        return _while_compiling(x.device.index or 0, *asked)
    device = torch.cuda.current_device() if x.device.index is None else x.device.index
    conclusion = _concluded.get(device)
    if conclusion is None:
        conclusion = _conclude(device, look=not torch.cuda.is_current_stream_capturing())
    return conclusion.orders.get(asked, DEFINITION)


def _is_on_gpu(x: Tensor) -> bool:
    """Whether it lies on a GPU that torch calls CUDA's; says once that kernels for others are not there."""
    device = x.device.type
    if device in ("mps", "xpu") and not torch.compiler.is_compiling():
        _say(f"geokernels runs its definitions on {device}: its GPU kernels are for NVIDIA's")
    # not asked for every tensor, as the answer takes a while; one that a tracer made up needs no GPU
    return device == "cuda" and (torch.cuda.is_initialized() or torch.cuda.is_available())


def refuse(device: int) -> str | None:
    """Say why there is nothing to prove on a GPU, or None."""
    if reason := native.refuse_device(device):
        return reason
    return f"{native.missing_cuda}; {triton.missing}" if native.missing_cuda and triton.missing else None


@constant_while_compiling
def _while_compiling(device: int, operator: str, asked: str) -> tuple[str, ...]:
    # a constant of the graph: it does not compile again, and change, when something is concluded later
    conclusion = _concluded.get(device) or _conclude(device, look=False)
    return conclusion.orders.get((operator, asked), DEFINITION)


def _conclude(device: int, *, look: bool) -> Conclusion:
    """What this process goes by on a GPU from now on; without a look, only if that is known."""
    with _lock:
        if device not in _concluded:
            conclusion = _found(device, look)
            if conclusion is None:
                return Conclusion({})
            _concluded[device] = conclusion
        return _concluded[device]


def holds(name: str, device: int = 0) -> Verdict | None:
    """What is known here of ``"native sinkhorn"``, say; None where nothing is. Proves nothing."""
    return known(device).verdicts.get(name)


def known(device: int) -> Record:
    """All that is known of a GPU without looking at it, by this process or an earlier one."""
    if device in _concluded:
        return _concluded[device].record
    key, at = _where(device)
    if isinstance(chosen := setting(), Path):
        return proof_cache.read(chosen, key, ours=False) or Record()
    return (at and proof_cache.read(at, key)) or Record()


def _where(device: int) -> tuple[dict, Path | None]:
    """The key of a GPU and the file that is kept of it, None where there is no folder for one."""
    key, folder = proof_cache.key_of(device), proof_cache.folder()
    return key, folder and proof_cache.file_of(key, folder)


def setting() -> str | Path:
    """What ``GEOKERNELS_PROOF`` says: ``"on"``, ``"off"``, or the file whose conclusions are taken."""
    said = os.environ.get(VARIABLE, "").strip()
    if said in ("", "on", "off"):
        return said or "on"
    if os.sep in said or said.endswith(".json"):
        return Path(said)
    raise ValueError(f"{VARIABLE} must be on, off or a file of geokernels tune --json, got {said!r}")


def orders_of(record: Record) -> Orders:
    """What is asked first, by operator and class: what is right and faster, the fastest first."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for name, verdict in record.verdicts.items():
        implementation, _, operator = name.partition(" ")
        if implementation not in IMPLEMENTATIONS or operator not in CLASSES:
            continue
        for asked, ratios in verdict.speedups.items():
            wrong = "" in verdict.wrong or asked.rpartition(" ")[2] in verdict.wrong
            if not wrong and min(ratios) >= FASTER:
                found.setdefault((operator, asked), []).append((-statistics.median(ratios), implementation))
    return {asked: (*(name for _, name in sorted(fast)), *DEFINITION) for asked, fast in found.items()}


def _found(device: int, look: bool) -> Conclusion | None:
    """A conclusion from the setting, a file, or a look at the kernels; None where that is not to be."""
    chosen = setting()
    if chosen == "off":
        return Conclusion({}, reason=f"{VARIABLE}=off")
    if reason := refuse(device):
        return _open(reason)
    if isinstance(chosen, Path):
        record = proof_cache.read(chosen, proof_cache.key_of(device), ours=False)
        if record is None:
            return _open(f"{VARIABLE}={chosen} holds nothing of this GPU and this installation")
        return Conclusion(orders_of(record), record)
    key, at = _where(device)
    record = (at and proof_cache.read(at, key)) or Record()
    if not record.is_whole():
        if not look:
            return None
        record = _proved(device, key, at, record)
    return Conclusion(orders_of(record), record, "; ".join(sorted(set(record.open.values()))))


def _open(reason: str) -> Conclusion:
    _say(f"geokernels runs its definitions on this GPU: {reason}")
    return Conclusion({}, reason=reason)


def _say(sentence: str) -> None:
    """A line of the log, once."""
    if sentence not in _said:
        _said.add(sentence)
        log.warning(sentence)


def _proved(device: int, key: dict, at: Path | None, record: Record) -> Record:
    """Look at what ``record`` leaves open; of several processes one does, and the others wait for it."""
    job, began = Job.this(), time.time()
    remedy = "run geokernels tune there first"
    if job.machines > 1:
        # each would conclude for itself, and not all the same
        return _left(record, f"a job of several machines proves nothing; {remedy}")
    with contextlib.ExitStack() as held:
        try:
            if at is None:
                raise FileNotFoundError("neither XDG_CACHE_HOME nor HOME is set")
            held.enter_context(proof_cache.locked(at, PATIENCE))
            latest = proof_cache.read(at, key) or Record()
            tried = latest.at >= began or (latest.job == job.word != "" and latest.at >= STARTED - AROUND)
            if latest.is_whole() or tried:
                return latest  # another process has just tried, or one of this job
            if job.word:
                proof_cache.write(at, key, latest)  # or the others would not hear of what is concluded
        except TimeoutError as error:
            return _left(record, str(error))
        except OSError as error:
            if job.word:
                return _left(
                    record, f"there is no folder that all processes of a job share ({error}); {remedy}"
                )
            _say(
                f"geokernels cannot keep what it finds out, each process looks at the kernels again: {error}"
            )
            at, latest = None, record
        return look(device, key, at, latest, job=job.word)


def _left(record: Record, reason: str) -> Record:
    _say(f"geokernels runs definitions on this GPU where nothing faster has been proved: {reason}")
    return record._replace(open={"": reason})


def look(
    device: int,
    key: dict,
    at: Path | None,
    record: Record,
    *,
    job: str = "",
    **how,
) -> Record:
    """Look at what a record leaves open, and keep what is found; whoever calls has the lock of the file.

    Args:
        device: The GPU.
        key: Its key.
        at: Where the record is kept, or None.
        record: What is known.
        job: The job of this process.
        **how: How long, and whom to tell; see :func:`proof_runner.prove`.
    """
    _say(
        f"geokernels finds out which of its kernels are right and fast on {key['gpu']}, once for this "
        f"installation, in up to {proof_runner.LIMIT:.0f} s; {VARIABLE}=off runs the definitions"
    )

    def keep(outcome: Outcome) -> None:
        if at is not None:
            with contextlib.suppress(OSError):  # which the end of it will tell
                proof_cache.write(at, key, _with(record, outcome))

    outcome = proof_runner.prove(tuple(record.verdicts), gpu_of(device), keep=keep, **how)
    record = _with(record, outcome)._replace(job=job, at=time.time())
    if outcome.open:
        reasons = "; ".join(f"{name}: {why}" if name else why for name, why in outcome.open.items())
        _say(f"geokernels runs its definitions where it could not find out about kernels: {reasons}")
    if at is not None:
        try:
            proof_cache.write(at, key, record)
        except OSError as error:
            _say(f"geokernels cannot keep what it concluded of the kernels: {error}")
            if job:
                # the other processes of the job know nothing of it
                return _left(record._replace(verdicts={}), str(error))
    return record


def _with(record: Record, outcome: Outcome) -> Record:
    verdicts = record.verdicts | outcome.verdicts
    return record._replace(plan=outcome.plan or record.plan, verdicts=verdicts, open=outcome.open)


def gpu_of(device: int) -> str:
    """What CUDA_VISIBLE_DEVICES calls a GPU: as this process was told, else by its UUID."""
    visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    told = visible[device] if device < len(visible) else ""
    if told and not told.isdecimal():
        return told  # a UUID already, perhaps of a part of a GPU
    with contextlib.suppress(AttributeError, RuntimeError):
        return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return told or str(device)


def tune(device: int, *, again: bool = False, told=lambda name, doing: None) -> Record:
    """Prove what can be proved on a GPU now, for later processes.

    Args:
        device: The GPU.
        again: Whether to forget what is known.
        told: Called with each name and what is done to it.

    Raises:
        OSError: If what is found out cannot be kept.
        TimeoutError: If another process is at it and does not end.
    """
    key, at = _where(device)
    if at is None:
        raise OSError("XDG_CACHE_HOME or HOME must name a folder to keep what is concluded, neither is set")
    with proof_cache.locked(at, PATIENCE):
        record = Record() if again else proof_cache.read(at, key) or Record()
        before = -1
        # a child that ran out of time leaves the rest to another
        while not record.is_whole() and len(record.verdicts) > before:
            before = len(record.verdicts)
            record = look(device, key, at, record, limit=LEISURE, told=told)
        if proof_cache.read(at, key) is None:
            raise OSError(f"{at} could not be written")
    return record
