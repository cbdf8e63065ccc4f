"""Calls of every registered operator with arguments by chance: right ones, and what is wrong with them.

    python tests/kernels/fuzz_operators.py SEED FIRST LAST

makes the calls FIRST to LAST of a seed, each by its own number, and says on a line of its own which it is
about to make. What it returned follows, as a checksum of all bits by which two builds can be compared, or an
exception; a crash, or a call that does not end, ends the process, and the last line says which call it was.

Operators and the kinds of their arguments are read from their schemas; what an argument may look like, from
the call that tests/kernels/test_registration.py has for every operator.
"""

import hashlib
import math
import random
import re
import signal
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from geokernels.kernels import native

sys.path.insert(0, str(Path(__file__).parent))  # where Python does not look by itself under PYTHONSAFEPATH
from test_registration import ARGUMENTS, registered

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130]
MOST_NUMBERS = 60_000
VALUES = [0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 1e-38, 1e-20, 2e19, 1e20, 3e38, -3e38]
VALUES += [1e-300, 1e154, 1e300, -1e308]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.bool]
DTYPES += [torch.complex64, torch.uint8]
FLOATS = [0.0, 1.0, -1.0, 0.5, 1e-12, 1e-300, 1e300, math.nan, math.inf, -math.inf]
INTS = [0, 1, 2, 3, 5, -1, 17, 200, 2**31, -(2**63), 2**63 - 1]
MOST_ITERATIONS = 300  # or a call would rightly take for ever
LONGEST = 60  # seconds that one call may take


class Fuzzer:
    """The call of a number."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.chance.getrandbits(60))
        # the same sizes become the same others, so that many calls still fit together
        self.renamed = {}
        self.renames = self.chance.random() < 0.6
        # how much is wrong with the call
        self.wrong = self.chance.choice([0.0, 0.0, 0.05, 0.3])
        self.spoilt = self.chance.choice([0.0, 0.1, 0.6])
        self.wide = self.chance.random() < 0.4

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def size(self, given: int) -> int:
        if self.often(self.wrong):
            return self.chance.choice(SIZES)
        if not self.renames:
            return given
        return self.renamed.setdefault(given, self.chance.choice(SIZES))

    def tensor(self, like: torch.Tensor) -> torch.Tensor:
        shape = [self.size(size) for size in like.shape]
        while math.prod(shape) > MOST_NUMBERS:
            shape[shape.index(max(shape))] = 3
        if self.often(self.wrong):
            self.chance.choice([shape.clear, lambda: shape.insert(0, 2), lambda: shape and shape.pop()])()
        if like.dtype.is_floating_point:
            x = torch.randn(shape, generator=self.generator, dtype=torch.float64)
            x = self.spoil(x.abs() if self.often(0.3) else x)
            x = x.to(torch.float64 if self.wide else torch.float32)
        else:
            x = torch.randint(-2, 20, shape, generator=self.generator, dtype=like.dtype)
        if self.often(self.wrong):
            x = x.to(self.chance.choice(DTYPES))
        x = self.strided(x)
        return x.requires_grad_() if x.is_floating_point() and self.often(0.2) else x

    def spoil(self, x: torch.Tensor) -> torch.Tensor:
        """Some numbers, a whole tensor or all its bits by chance."""
        if not x.numel() or not self.often(self.spoilt):
            return x
        kind = self.chance.choice(["some", "all", "scaled", "bits", "equal"])
        if kind == "some":
            for _ in range(self.chance.choice([1, 3])):
                x.view(-1)[self.chance.randrange(x.numel())] = self.chance.choice(VALUES)
        elif kind == "all":
            x.fill_(self.chance.choice(VALUES))
        elif kind == "scaled":
            x = x * self.chance.choice(VALUES)
        elif kind == "equal":
            x = x.sign()
        elif self.wide:
            x = torch.randint(-(2**63), 2**63 - 1, x.shape, generator=self.generator).view(torch.float64)
        else:
            bits = torch.randint(-(2**31), 2**31, x.shape, generator=self.generator, dtype=torch.int32)
            x = bits.view(torch.float32)
        return x

    def strided(self, x: torch.Tensor) -> torch.Tensor:
        if not x.dim() or not self.often(0.2):
            return x
        kind = self.chance.choice(["turned", "spread", "repeated", "shifted"])
        if kind == "turned":
            return x.mT.contiguous().mT if x.dim() > 1 else x
        if kind == "spread":
            return torch.stack((x, x), -1)[..., 0]
        if kind == "repeated":
            return x[:1].expand(x.shape) if x.shape[0] else x
        return torch.cat((x.reshape(-1)[:1], x.reshape(-1)))[min(1, x.numel()) :].view(x.shape)

    def argument(self, schema: torch.Argument, given):
        """Of the kind that the schema names."""
        kind = schema.type
        if isinstance(kind, torch.OptionalType):
            kind = kind.getElementType()
            if given is None and self.often(0.7):
                return None
            if given is None:
                # as in the calls: potentials of either side, or how many points there are
                other = self.chance.choice([torch.empty(2, 4), torch.empty(2, 5), torch.ones(2).long()])
                given = torch.ones(2).long() if schema.name in ("n", "m") else other
            elif self.often(0.15):
                return None
        if isinstance(kind, torch.TensorType):
            return self.tensor(given)
        if isinstance(kind, torch.BoolType):
            return self.often(0.5)
        if isinstance(kind, torch.IntType):
            changed = self.chance.choice(INTS) if self.often(0.1) else self.size(given)
            return min(changed, MOST_ITERATIONS) if schema.name == "max_iter" else changed
        if isinstance(kind, torch.StringType):
            return self.chance.choice([given, given, "", "nobody"])
        assert isinstance(kind, torch.FloatType), f"a new kind of argument: {kind}"
        return self.chance.choice(FLOATS) if self.often(0.15) else given

    def call(self) -> tuple[str, list]:
        """An operator's name and arguments."""
        name = self.chance.choice(sorted(registered()))
        schema = getattr(torch.ops.geokernels, name).default._schema
        given = ARGUMENTS[name]()
        return name, [self.argument(*pair) for pair in zip(schema.arguments, given, strict=True)]


def checksum(tensors: Iterable[torch.Tensor]) -> str:
    """Of all bits, those of NaN alike."""
    read = hashlib.sha256()
    for x in tensors:
        x = x.detach().contiguous()
        x = torch.where(x.isnan(), math.nan, x) if x.is_floating_point() else x
        read.update(x.numpy().tobytes())
    return read.hexdigest()[:16]


def make(seed: int, number: int) -> None:
    """The call of that number."""
    fuzzer = Fuzzer(f"{seed} {number}")
    level = fuzzer.chance.choice(native.build_info()["simd_levels"])
    native.set_simd_level(level)
    name, args = fuzzer.call()
    print(number, name, level, flush=True)
    signal.alarm(LONGEST)
    try:
        found = getattr(torch.ops.geokernels, name)(*args)
        parts = found if isinstance(found, tuple) else (found,)
        print("   ", checksum(parts))
        if leaves := [part for part in args if isinstance(part, torch.Tensor) and part.requires_grad]:
            sum(part.sum() for part in parts if part.requires_grad).backward()
            print("   ", checksum(leaf.grad for leaf in leaves if leaf.grad is not None))
    except Exception as error:
        # without the folder that a library was built in
        said = re.sub(r"/\S*csrc/", "", str(error).split("\n")[0])
        print("   ", type(error).__name__, said[:150])
    signal.alarm(0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    seed, first, last = map(int, sys.argv[1:])
    torch.set_num_threads(2)
    for number in range(first, last):
        make(seed, number)
