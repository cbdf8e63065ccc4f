"""Runs of Adam: how a step follows its gradients, and what of the optimiser is saved and put back."""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .run import Prepared, Run, copied
from .run_state import require_state


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

    def _optimise(self, parameters: Iterable[Tensor], **settings) -> None:
        """Let Adam move these."""
        self.optimizer = torch.optim.Adam(parameters, lr=self._rate, **settings)

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
        moments = [value for p in moving for value in self.optimizer.state.get(p, {}).values()]
        self._before_changing([*moving, *moments])
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        for kept in self.optimizer.state.values():
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
        """Refuse what Adam keeps of a parameter unless it is of that parameter's shape."""
        for parameter, kept in self.optimizer.state.items():
            moments = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": parameter,
                "exp_avg_sq": parameter,
            }
            require_state(kept, moments, "state.optimizer")


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
