"""Runs of Adam: how a step follows its gradients, and what of the optimiser is saved and put back."""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .run import Prepared, Run, copied
from .run_state import require_state

# What an optimiser keeps of each parameter, in its shape, beside the number of its steps
MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "madgrad": ("grad_sum_sq", "s", "x0")}


class Descent(Run):
    """A run of Adam steps whose rate falls along half a cosine, or as :meth:`_learning_rate` says.

    A subclass calls :meth:`_optimise` once it has its parameters; :meth:`_step` makes gradients, refuses
    them if they are not finite, and returns what :meth:`_descend` does.
    """

    optimizer: torch.optim.Optimizer | None = None

    def _begin(self, facts: dict, *, steps: int, rate: float, prepared: Prepared | None = None) -> None:
        """Stand before the first of so many steps, which has this learning rate."""
        super()._begin(facts, steps=steps, prepared=prepared)
        self._rate = rate

    def _optimise(self, parameters: Iterable[Tensor], *, by: str = "adam", **settings) -> None:
        """Let Adam move these, or another of ``MOMENTS``."""
        kind = madgrad() if by == "madgrad" else torch.optim.Adam
        self.optimizer, self._by = kind(parameters, lr=self._rate, **settings), by

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.optimizer.param_groups[0]["params"][0].device

    def _learning_rate(self) -> float:
        """Of this step."""
        return self._rate * 0.5 * (1 + math.cos(math.pi * self.index / self._steps))

    def _descend(self, loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Follow the gradients; the row of what the step minimised."""
        moving = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        kept = [value for p in moving for value in self.optimizer.state.get(p, {}).values()]
        self._before_changing([*moving, *(value for value in kept if isinstance(value, Tensor))])
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        for kept in self.optimizer.state.values():
            if isinstance(kept["step"], Tensor):
                kept["step"] = kept["step"].float()  # Adam counts in the default dtype
        self.terms = ("loss", *terms)
        return torch.stack([loss, *terms.values()])

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        optimizer = self.optimizer
        before = optimizer and (copied(optimizer.state), copied(optimizer.param_groups))
        with super()._whole_or_not():
            try:
                yield
            except BaseException:
                self.optimizer = optimizer
                if optimizer:
                    optimizer.state, optimizer.param_groups = before
                raise

    def state_dict(self) -> dict:
        """Everything a later run needs to end as this one would: tensors, numbers and strings only."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def _restore(self, state: dict) -> None:
        super()._restore(state)
        # a copy, for Adam would change the moments of the state that it was given
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._require_moments()

    def _require_moments(self) -> None:
        """Refuse what the optimiser keeps of a parameter unless it is of that parameter's shape."""
        for parameter, kept in self.optimizer.state.items():
            step = 0 if self._by == "madgrad" else torch.zeros((), dtype=torch.float32)
            moments = {"step": step, **dict.fromkeys(MOMENTS[self._by], parameter)}
            require_state(kept, moments, "state.optimizer")


def madgrad() -> type[torch.optim.Optimizer]:
    """MADGRAD (Defazio and Jelassi 2021), as timm has it.

    Raises:
        ImportError: If timm, without which open_clip is not installed, is missing.
    """
    try:
        from timm.optim.madgrad import MADGRAD
    except ImportError as error:
        raise ImportError(
            "optimiser 'madgrad' needs timm, which open_clip brings: pip install timm"
        ) from error
    return MADGRAD


def require_finite_step(step: int, loss: Tensor, gradients: Tensor | None = None) -> None:
    """Refuse a step that would spoil the parameters, before it is taken; waits for the device.

    On the meta device, where a step is counted and not computed, there are no values to refuse.

    Args:
        step: Its number, from 0.
        loss: What it minimises.
        gradients: Their norms, where they are known.

    Raises:
        FloatingPointError: If any of them is not finite.
    """
    if loss.is_meta:
        return
    if not math.isfinite(loss.item()):
        reason = f"the loss at step {step} is {loss.item()}"
    elif gradients is not None and not torch.isfinite(gradients).all():
        reason = f"the gradient at step {step} is not finite"
    else:
        return
    raise FloatingPointError(f"{reason}; lower the learning rate")
