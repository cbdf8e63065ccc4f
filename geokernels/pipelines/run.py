"""The steps that every optimising pipeline takes, counts, records, saves and continues alike."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from .._modes import own_modes
from .running import naming_knobs, require_index, require_same_run, require_state


class Descent(ABC):
    """A run of Adam steps whose rate falls along half a cosine: :meth:`step` until :attr:`done`.

    A subclass names in ``knobs`` what to lower where memory runs out, calls :meth:`_begin` once it has its
    parameters, makes gradients and calls :meth:`_descend` in :meth:`_step`, and keeps what is its own by
    :meth:`_own_state` and :meth:`_take_state`.

    Attributes:
        index: Steps taken.
        terms: Names of the columns of :attr:`history`; "loss" is the weighted sum.
    """

    knobs: ClassVar[str]

    def _begin(self, optimizer: torch.optim.Optimizer, *, steps: int, rate: float, run: dict) -> None:
        """Stand before the first step; ``run`` describes this run, and a state of another is refused."""
        self.optimizer, self._steps, self._rate, self._run = optimizer, steps, rate, run
        self.index = 0
        self.terms: tuple[str, ...] = ()
        self._history: list[Tensor] = []

    @property
    def done(self) -> bool:
        """Whether every step has been taken."""
        return self.index >= self._steps

    @property
    def history(self) -> Tensor:
        """Loss terms so far, ``(index, len(terms))`` float32 on the CPU."""
        return (
            torch.stack(self._history).cpu()
            if self._history
            else torch.empty(0, len(self.terms), dtype=torch.float32)
        )

    @property
    def loss(self) -> float:
        """The weighted sum at the last step; waits for the device."""
        return self._history[-1][0].item()

    @own_modes
    def step(self) -> None:
        """Take one Adam step.

        Raises:
            RuntimeError: If every step has been taken.
            FloatingPointError: If the loss or its gradient is not finite; the step is not taken, so that what
                is made of the run and :meth:`state_dict` are the last good ones.
            MemoryError: If memory runs out; names the settings to lower.
        """
        if self.done:
            raise RuntimeError(f"all {self._steps} steps have been taken")
        with naming_knobs(self.knobs):
            self._step()

    @abstractmethod
    def _step(self) -> None:
        """Make the gradients of one step, refuse them if they are not finite, and :meth:`_descend`."""

    def _descend(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Follow the gradients, and record what the step minimised."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate * 0.5 * (1 + math.cos(math.pi * self.index / self._steps))
        self.optimizer.step()
        for kept in self.optimizer.state.values():
            kept["step"] = kept["step"].float()  # Adam counts in the default dtype
        self.terms = ("loss", *terms)
        self._history.append(torch.stack([loss, *terms.values()]).detach())
        self.index += 1

    @abstractmethod
    def _own_state(self) -> dict:
        """What the subclass needs besides the optimizer and the history."""

    @abstractmethod
    def _take_state(self, state: dict) -> None:
        """Take back what :meth:`_own_state` gave, which stands in ``state`` among the rest."""

    def state_dict(self) -> dict:
        """Everything a later run needs to end as this one would: tensors, numbers and strings only."""
        return {
            "run": self._run,
            "index": self.index,
            "terms": list(self.terms),
            "history": self.history,
            "optimizer": self.optimizer.state_dict(),
            **self._own_state(),
        }

    @own_modes
    def load_state_dict(self, state: dict) -> None:
        """Continue from a state of the same run.

        Raises:
            ValueError: If the state belongs to another run, or is not as :meth:`state_dict` writes it; the
                message names the first difference.
        """
        require_same_run(state["run"], self._run)
        require_state(state, {**self.state_dict(), "history": self.history[:0], "terms": []})
        require_index(state["index"], self._steps)
        require_index(len(state["history"]), state["index"])
        self._take_state(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self._require_moments()
        self.index, self.terms = state["index"], tuple(state["terms"])
        device = self.optimizer.param_groups[0]["params"][0].device
        self._history = [row.to(device) for row in state["history"]]

    def _require_moments(self) -> None:
        """Refuse what Adam keeps of a parameter unless it is of that parameter's shape."""
        for parameter, kept in self.optimizer.state.items():
            moments = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": parameter,
                "exp_avg_sq": parameter,
            }
            require_state(kept, moments, "state.optimizer")
