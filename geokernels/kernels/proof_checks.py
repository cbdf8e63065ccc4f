"""What an implementation must show to be trusted: right values, bits that repeat, memory left alone, speed.

Every check takes what it looks at as callables, and the device: it does not know what a GPU is.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch_internals import DispatchMode, redispatch
from ._ops import NAMESPACE

# An error may be this many times that of PyTorch's own arithmetic, and this many roundings more. It lets sums
# of tensor cores pass, and not one product in TF32, which is off by a thousand roundings.
FACTOR, ROUNDINGS = 4.0, 64.0
WEIGHTS = ("a", "b")

Outputs = dict[str, Tensor]
Run = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Outputs]


class Inputs(NamedTuple):
    """What an operator is given.

    Attributes:
        tensors: Numbers in float64, counts and indices as they are; on the CPU, a batch of problems each.
        settings: All else.
        broken: The problem of the batch that holds a NaN, or None.
    """

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    broken: int | None = None

    def at(self, dtype: torch.dtype, device: str) -> "Inputs":
        """The same in ``dtype``, on ``device``."""
        # weights that half precision rounds have no longer one sum
        full = torch.promote_types(dtype, torch.float32)
        dtypes = {name: full if name in WEIGHTS else dtype for name in self.tensors}
        there = {
            name: x.to(device, dtypes[name] if x.is_floating_point() else x.dtype)
            for name, x in self.tensors.items()
        }
        return self._replace(tensors=there)

    def whole(self) -> "Inputs":
        """Without the problem that holds a NaN."""
        if self.broken is None:
            return self
        batch = next(iter(self.tensors.values())).shape[0]
        kept = torch.tensor([i for i in range(batch) if i != self.broken])
        return Inputs({name: x[kept.to(x.device)] for name, x in self.tensors.items()}, self.settings)


def computed(run: Run, inputs: Inputs, leaves: Sequence[str]) -> Outputs:
    """Outputs, and gradients to ``leaves`` of a fixed linear function of those outputs that have any."""
    tensors = {name: x.detach().requires_grad_(name in leaves) for name, x in inputs.tensors.items()}
    outputs = run(tensors, inputs.settings)
    # a NaN in one problem is one in its gradients: values say enough
    moving = [out for out in outputs.values() if out.requires_grad]
    if moving and inputs.broken is None:
        loss = sum((torch.where(out.isfinite(), out, 0) * _upstream(out)).sum() for out in moving)
        grads = torch.autograd.grad(loss, [tensors[name] for name in leaves], materialize_grads=True)
        outputs |= {f"gradient to {name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: out.detach() for name, out in outputs.items()}


def _upstream(out: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randn(out.shape, generator=chance, dtype=torch.float64).to(out.device, out.dtype)


def allowed(
    ours: Tensor, eager: Tensor, exact: Tensor, factor: float, roundings: float
) -> tuple[float, float]:
    """The error of ``ours``, and the largest that may be: by that of ``eager``, both against ``exact``."""
    if exact.numel() == 0:
        return 0.0, 0.0
    error = (ours.double() - exact).abs().max().item()
    slack = roundings * torch.finfo(ours.dtype).eps * max(1.0, exact.abs().max().item())
    return error, factor * (eager.double() - exact).abs().max().item() + slack


def _differs(ours: Tensor, eager: Tensor, exact: Tensor) -> str:
    """How one output differs from what it should be; an empty word if it does not."""
    if ours.shape != exact.shape or ours.dtype != eager.dtype:
        return f"is {ours.dtype} {tuple(ours.shape)}, not {eager.dtype} {tuple(exact.shape)}"
    ours, eager = ours.cpu(), eager.cpu()
    if not ours.is_floating_point():
        return "" if torch.equal(ours, exact) else "differs"
    finite = exact.isfinite()
    if not torch.equal(ours.isfinite(), finite):
        return "is finite where it should not be, or not finite where it should be"
    if not torch.equal(ours[~finite].sign().nan_to_num(2).double(), exact[~finite].sign().nan_to_num(2)):
        return "has the wrong infinities"
    roundings = ROUNDINGS if torch.finfo(ours.dtype).bits >= 32 else 1.0
    error, most = allowed(ours[finite], eager[finite], exact[finite], FACTOR, roundings)
    return "" if error <= most else f"is off by {error:.2g}, more than {most:.2g}"


def find_wrong_values(definition: Run, run: Run, inputs: Inputs, leaves: Sequence[str] = ()) -> str:
    """What is wrong with values and gradients of ``run``, by the definition in float64; empty if nothing."""
    whole = inputs.whole()
    exact = computed(definition, whole.at(torch.float64, "cpu"), leaves if inputs.broken is None else ())
    eager = computed(definition, whole, leaves if inputs.broken is None else ())
    ours = computed(run, inputs, leaves)
    if inputs.broken is not None:
        broken = [out[inputs.broken] for out in ours.values() if out.is_floating_point()]
        if all(bool(out.isfinite().all()) for out in broken):
            return "NaN in its input does not reach its output"
        kept = [i for i in range(len(next(iter(ours.values())))) if i != inputs.broken]
        ours = {name: out[kept] for name, out in ours.items()}
    for name, out in exact.items():
        if name not in ours:
            return f"there is no {name}"
        if how := _differs(ours[name], eager[name], out):
            return f"{name} {how}"
    return ""


MARGIN = 512  # bytes on each side of a tensor, what torch aligns memory on a GPU to
FACTORIES = {
    f"aten::{fresh}{like}"
    for fresh in ("empty", "zeros", "ones", "full")
    for like in ("", "_like", "_strided")
} | {f"aten::new_{fresh}" for fresh in ("empty", "empty_strided", "zeros", "ones", "full")}


class Margins(DispatchMode or object):
    """Gives every tensor that is made margins in memory, and looks at them afterwards.

    Margins, and what is not filled, hold NaN: what is read beside a tensor, or not written in it, shows. Of
    what compiled operators allocate, it sees what they ask torch's dispatcher for: all on a GPU.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device).type
        self.kept: list[Tensor] = []

    def placed(self, x: Tensor, *, filled: bool = True) -> Tensor:
        """A copy of ``x`` between margins, of the same strides."""
        if x.numel() == 0 or x.layout != torch.strided:
            return x
        extent = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        item = x.element_size()
        room = torch.full((2 * MARGIN + extent * item,), 255, dtype=torch.uint8, device=x.device)
        inside = room[MARGIN : MARGIN + extent * item].view(x.dtype).as_strided(x.shape, x.stride())
        if filled:
            inside.copy_(x)
        self.kept.append(room)
        return inside

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Make tensors between margins; look into our own operators."""
        kwargs = kwargs or {}
        if function.namespace == NAMESPACE:
            with self:
                return redispatch(function, self.device, *args, **kwargs)
        made = function(*args, **kwargs)
        name = function.name().partition(".")[0]
        return self.placed(made, filled="empty" not in name) if name in FACTORIES else made

    def are_whole(self) -> bool:
        """Whether nothing was written beside any tensor."""
        return all(
            bool((beside == 255).all()) for room in self.kept for beside in (room[:MARGIN], room[-MARGIN:])
        )


def _bits(out: Tensor) -> Tensor:
    return out.contiguous().view(-1).view(torch.uint8).cpu()


def find_wrong_memory(run: Run, inputs: Inputs, leaves: Sequence[str] = ()) -> str:
    """Whether a run has other bits the second time, changes its inputs, or writes beside tensors."""
    if DispatchMode is None:
        return "this PyTorch shows nobody what operators allocate"
    margins = Margins(next(iter(inputs.tensors.values())).device.type)
    placed = inputs._replace(tensors={name: margins.placed(x) for name, x in inputs.tensors.items()})
    copies = {name: x.clone() for name, x in inputs.tensors.items()}
    first = computed(run, inputs._replace(tensors=copies), leaves)
    with margins:
        second = computed(run, placed, leaves)
    if not margins.are_whole():
        return "it writes beside its tensors"
    for name, x in inputs.tensors.items():
        if not torch.equal(_bits(x), _bits(placed.tensors[name])):
            return f"it changes its input {name}"
    for name, out in first.items():
        if not torch.equal(_bits(out), _bits(second[name])):
            return f"{name} has other bits the second time"
    return ""


Clock = Callable[[Callable[[], object]], float]
ROUNDS = 5  # of timing, of which the quickest counts
ENOUGH = 2.0  # seconds of timing, after which no further round begins
SPAN = 2e-3  # seconds that a time is taken over, at least, or 50 calls


def stopwatch(device: str) -> Clock:
    """Seconds of a call, until the device has done it."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def seconds(run: Callable[[], object], calls: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        return (time.perf_counter() - began) / calls

    def clock(run: Callable[[], object]) -> float:
        once = seconds(run, 1)
        return once if once > SPAN else seconds(run, min(50, math.ceil(SPAN / max(once, 1e-6))))

    return clock


def speedup(definition: Run, run: Run, inputs: Inputs, leaves: Sequence[str], clock: Clock) -> float:
    """How many times faster than the definition: the less of that without and with gradients."""

    def values(what: Run):
        def call() -> None:
            with torch.no_grad():
                what(inputs.tensors, inputs.settings)

        return call

    pairs = [(values(definition), values(run))]
    if leaves:
        pairs.append(tuple((lambda what=what: computed(what, inputs, leaves)) for what in (definition, run)))
    ratios = []
    for slow, fast in pairs:
        slow(), fast()  # compiled, and in the caches
        spent, times = 0.0, ([], [])
        for _ in range(ROUNDS):
            for call, seconds in zip((slow, fast), times, strict=True):
                seconds.append(clock(call))
                spent += seconds[-1]
            if spent > ENOUGH:
                break
        ratios.append(min(times[0]) / max(min(times[1]), 1e-9))
    return min(ratios)
