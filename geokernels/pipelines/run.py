"""Work taken in whole steps: what every pipeline prepares, counts, records, saves and continues alike."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._modes import own_modes
from .run_state import FORMAT, require_format, require_index, require_rows, require_same_run, require_state

# Is told in a phrase what is being prepared, and, where it is counted, how much is done, of how much, and of
# what: ``tell(what, done=0, total=None, unit=None)``.
Tell = Callable[..., None]


class Prepared(NamedTuple):
    """What one run has prepared, for others that would prepare the same; see :attr:`Run.prepared`."""

    facts: dict  # on which it depends
    parts: Any


class Run(ABC):
    """A run in progress: :meth:`step` until :attr:`done`; :meth:`state_dict` at any time between two steps.

    A subclass calls :meth:`_begin` once it knows what names the run. What it searches or computes once
    before the first step belongs in :meth:`_prepare`, a step in :meth:`_step`, and what only it keeps in
    :meth:`_own_state` and :meth:`_take_state`.

    A step is taken whole or not at all: whatever it raises, nothing has changed. For that, a subclass lists
    in ``replaced`` the attributes to which a step assigns, and announces by :meth:`_before_changing` the
    tensors that it changes in place.

    Attributes:
        index: Steps taken.
        terms: Names of the columns of :attr:`history`.
        prepared_in: Seconds that :meth:`prepare` took; 0 before.
    """

    knobs: ClassVar[str]  # what to lower where memory runs out
    replaced: ClassVar[tuple[str, ...]] = ()  # such as "edits" or "cycle.latents"
    prepared_by: ClassVar[tuple[str, ...]] = ()  # the settings on which what is prepared depends

    index: int
    terms: tuple[str, ...]
    prepared_in: float

    def _begin(
        self,
        facts: dict,
        *,
        steps: int | None,
        terms: tuple[str, ...] = (),
        prepared: Prepared | None = None,
    ) -> None:
        """Stand before the first step.

        Args:
            facts: See :attr:`facts`.
            steps: How many there are; None where that shows on the way, by a :attr:`steps` of one's own.
            terms: Names of the columns of the history, where they are known already.
            prepared: Of another run, to be used instead of preparing the same again.
        """
        self._facts, self._steps, self.index, self.terms = facts, steps, 0, terms
        self._history: list[Tensor] = []
        self._saved: list[tuple[Tensor, Tensor]] = []
        self._is_prepared, self.prepared_in = False, 0.0
        if prepared is not None:
            require_same_run(prepared.facts, self._facts_of_prepared(), "prepared")
        self._prepared = prepared

    @property
    def facts(self) -> dict:
        """What names this run: ``"config"``, prompts, checksums; a state of a run with others is refused."""
        return self._facts

    @property
    def steps(self) -> int:
        """How many steps there are, as far as is known: a run may find out that it needs more."""
        return self._steps

    @property
    def device(self) -> torch.device:
        """Where the history is gathered, so that no step waits for it."""
        return torch.device("cpu")

    @property
    def done(self) -> bool:
        """Whether every step has been taken."""
        return self.index >= self.steps

    @property
    def history(self) -> Tensor:
        """Loss terms so far, ``(index, ..., len(terms))`` float32 on the CPU."""
        empty = torch.empty(0, *self._row_shape, dtype=torch.float32)
        return torch.stack(self._history).cpu() if self._history else empty

    @property
    def loss(self) -> float:
        """The weighted sum at the last step, NaN before the first; waits for the device."""
        return self._history[-1][0].item() if self._history and self.terms else math.nan

    @property
    def prepared(self) -> Prepared:
        """What :meth:`prepare` made, which is called now if it was not yet; other runs may be given it.

        They may differ in every setting that ``prepared_by`` does not list: what guides, how strongly, and
        how long.
        """
        self.prepare()
        return Prepared(self._facts_of_prepared(), self._parts())

    @own_modes
    def prepare(self, tell: Tell | None = None) -> None:
        """Do what is done once before the first step, which does it otherwise; the second time, nothing.

        Args:
            tell: Called with a phrase that says what is being prepared, and how far that has come.

        Raises:
            MemoryError: If memory runs out; names the settings to lower.
        """
        if self._is_prepared:
            return
        began = time.perf_counter()
        with self._whole_or_not(), naming_knobs(self.knobs):
            self._prepare(tell or (lambda *said, **counted: None))
            self._is_prepared = True
        self.prepared_in = time.perf_counter() - began

    @own_modes
    def step(self) -> None:
        """Take one step, whole or not at all.

        Raises:
            RuntimeError: If every step has been taken.
            FloatingPointError: If the loss or its gradient is not finite.
            MemoryError: If memory runs out; names the settings to lower.
        """
        if self.done:
            raise RuntimeError(f"all {self.steps} steps have been taken")
        self.prepare()
        with self._whole_or_not(), naming_knobs(self.knobs):
            self._history.append(self._step().detach())
            self.index += 1

    def finish(self, callback: Callable[[Self], None] | None = None) -> None:
        """Take every step that is left; ``callback`` is called with the run after each."""
        while not self.done:
            self.step()
            if callback is not None:
                callback(self)

    def state_dict(self) -> dict:
        """Everything a later run needs to end as this one would: tensors, numbers and strings only."""
        return {
            **self._own_state(),  # first, for it may prepare
            "format": FORMAT,
            "run": self.facts,
            "index": self.index,
            "terms": list(self.terms),
            "history": self.history,
        }

    @own_modes
    def load_state_dict(self, state: dict) -> None:
        """Continue from a state of the same run.

        Raises:
            ValueError: If the state belongs to another run or another version, or is not as
                :meth:`state_dict` writes it; the message names the first difference.
        """
        require_format(state)
        require_same_run(state["run"], self.facts)
        require_state(state, {**self.state_dict(), "history": self.history[:0], "terms": []})
        if self._steps is not None:
            require_index(state["index"], self._steps)
        require_rows(state)
        self._restore(state)
        self.index, self.terms = state["index"], tuple(state["terms"])
        self._history = [row.to(self.device) for row in state["history"]]

    @property
    def _row_shape(self) -> tuple[int, ...]:
        """Of what one step adds to the history."""
        return (len(self.terms),)

    def _prepare(self, tell: Tell) -> None:
        """Do what is done once before the first step."""
        return

    def _parts(self) -> Any:
        """What of it other runs can use."""
        return None

    def _facts_of_prepared(self) -> dict:
        return {**self.facts, "config": {name: self.facts["config"][name] for name in self.prepared_by}}

    @abstractmethod
    def _step(self) -> Tensor:
        """Take one step; the row of the history that says what it minimised."""

    @abstractmethod
    def _own_state(self) -> dict:
        """What only the subclass keeps."""

    @abstractmethod
    def _take_state(self, state: dict) -> None:
        """Take back what :meth:`_own_state` gave, which stands in ``state`` among the rest."""

    def _restore(self, state: dict) -> None:
        self._take_state(state)

    def _before_changing(self, tensors: Iterable[Tensor]) -> None:
        """Keep copies of tensors that a step is about to change in place."""
        self._saved += [(tensor, tensor.detach().clone()) for tensor in tensors]

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Put everything back if the block raises, be it that somebody pressed Ctrl-C."""
        names = ("index", "terms", "_history", "_is_prepared", *self.replaced)
        before = {name: copied(attrgetter(name)(self)) for name in names}
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for tensor, saved in self._saved:
                    tensor.copy_(saved)
            for name, value in before.items():
                owner, _, last = name.rpartition(".")
                setattr(attrgetter(owner)(self) if owner else self, last, value)
            raise
        finally:
            self._saved = []


def copied(value: Any) -> Any:
    """A list or dictionary, and dictionaries in it, as they are now; anything else is the same."""
    if not isinstance(value, list | dict):
        return value
    value = copy.copy(value)
    for key in range(len(value)) if isinstance(value, list) else list(value):
        if isinstance(value[key], dict):
            value[key] = copy.copy(value[key])
    return value


@contextmanager
def naming_knobs(knobs: str) -> Iterator[None]:
    """Turn what PyTorch says when memory runs out into one sentence that names what to lower.

    Raises:
        MemoryError: In place of PyTorch's own errors, on the CPU and on CUDA.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"the device ran out of memory; lower {knobs}") from error
    except RuntimeError as error:
        # the CPU's allocator has no error of its own
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise MemoryError(f"this machine ran out of memory; lower {knobs}") from error
