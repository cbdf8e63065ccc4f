"""What a step costs, counted: pictures that encoders are shown, and bytes that live or are kept."""

import weakref
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geokernels.models.clip import ClipEncoder

MIB, GIB = 2**20, 2**30


class CountingEncoder(ClipEncoder):
    """A CLIP that counts the pictures that it and its copies are shown."""

    shown: ClassVar[int] = 0

    @classmethod
    def of(cls, encoder: ClipEncoder) -> "CountingEncoder":
        """The same model, counting."""
        return cls(encoder.name, encoder.model, encoder.tokenizer, guides=encoder.guides)

    def preprocess(self, pictures: Tensor, **how) -> Tensor:
        """As without counting."""
        CountingEncoder.shown += len(pictures)
        return super().preprocess(pictures, **how)


class Encodes:
    """How many pictures counting encoders are shown inside of a ``with``: ``count``, once it has ended."""

    def __enter__(self) -> "Encodes":
        self.before = CountingEncoder.shown
        return self

    def __exit__(self, kind: type | None, *raised) -> None:
        self.count = CountingEncoder.shown - self.before
        if kind is None and not self.count:
            raise ValueError("encoders must be counting ones, none of them was shown a picture")


class Memory(TorchDispatchMode):
    """Counts the bytes of the storages that live, whatever device they are on."""

    def __init__(self, held: list[Tensor]):
        super().__init__()
        self.living, self.now, self.peak = {}, 0, 0
        for tensor in held:
            self.note(tensor)
        self.held = self.peak = self.now

    def note(self, tensor: Tensor) -> None:
        """Count the storage of ``tensor``, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.living:
            return
        self.living[key] = storage.nbytes()
        self.now += self.living[key]
        weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        """No longer count a storage that was freed."""
        self.now -= self.living.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        self.peak = max(self.peak, self.now)
        return result


class Kept:
    """A tensor that a graph keeps, as long as the graph does."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class Saved:
    """The most bytes kept for the way back at one time, each storage once, but for those of ``weights``."""

    def __init__(self, weights: list[Tensor]):
        self.weights = {weight.untyped_storage()._cdata for weight in weights}
        self.holders, self.now, self.peak, self.open = Counter(), 0, 0, True

    def pack(self, tensor: Tensor) -> Tensor | Kept:
        """Count the storage of ``tensor`` until the graph lets it go."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self.open or key in self.weights:
            return tensor
        if not self.holders[key]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.holders[key] += 1
        kept = Kept(tensor)
        weakref.finalize(kept, self.drop, key, size)
        return kept

    def drop(self, key: int, size: int) -> None:
        """One graph fewer keeps a storage."""
        self.holders[key] -= 1
        if not self.holders[key]:
            self.now -= size

    @staticmethod
    def unpack(kept: Tensor | Kept) -> Tensor:
        """What ``pack`` was given."""
        return kept.tensor if isinstance(kept, Kept) else kept

    def closing(self, backward: Callable) -> Callable:
        """``backward``, during which nothing is noted: what it computes again was not kept."""

        def run(*args, **settings):
            was, self.open = self.open, False
            try:
                return backward(*args, **settings)
            finally:
                self.open = was

        return run
