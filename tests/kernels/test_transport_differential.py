"""Compiled transport against its definition in float64, over problems that chance makes.

``GEOKERNELS_TRANSPORT_CASES`` says how many, and ``GEOKERNELS_TRANSPORT_SEED`` where they begin. A failure
names the seed of its case, which alone is ``GEOKERNELS_TRANSPORT_CASES=1`` from there, beside the known ones.
"""

import math
import os

import torch

import geokernels as gk
from geokernels.kernels import native, transport_clouds
from geokernels.reference.potentials import finite

CASES = int(os.environ.get("GEOKERNELS_TRANSPORT_CASES", "1600"))
SEED = int(os.environ.get("GEOKERNELS_TRANSPORT_SEED", "0"))
LEVELS = native.build_info().get("simd_levels", [])
# Once wrong: potentials beside a weight near 0; masses that overflow, on the way or at the end; the constant
# under a large reach; starts at +inf.
KNOWN = (1140, 1987, 2116, 2600, 3183, 3763, 3781)
COSTS = ("given", "sqeuclidean", "euclidean", "cosine", "dot", "lp")


class Case:
    """Two problems of a batch with their settings; everything follows from the seed."""

    def __init__(self, seed: int):
        self.chance = torch.Generator().manual_seed(seed)
        self.level, self.dtype = self.one_of(LEVELS), self.one_of((torch.float32, torch.float64))
        self.kind, self.reach = self.one_of(COSTS), self.one_of((None, None, 0.1, 1.0, 10.0, 1e3, 1e6))
        self.streamed = self.kind != "given" and self.chances(0.4)
        N, M, D = (int(1 + 40 * self.uniform() ** 2) for _ in range(3))
        if seed % 40 == 1 and self.kind == "given":  # rows in several groups
            N += 256
        self.x, self.y = self.normal(2, N, D), self.normal(2, M, D)
        self.a, self.b = (self.weights(2, size) if self.chances(0.8) else None for size in (N, M))
        self.options = {"eps": self.one_of((0.05, 0.2, 1.0, 10.0, 1e4)), "reach": self.reach, "tol": 0.0}
        self.options["max_iter"] = int(1 + 60 * self.uniform())
        if self.chances(0.3):
            self.options["lengths"] = tuple(
                torch.tensor([int(1 + self.uniform() * size), size]) for size in (N, M)
            )
        if self.chances(0.2):
            self.options["anneal"] = 5.0, 0.6
        if self.chances(0.2):
            self.options["init"] = self.normal(2, N).to(self.dtype), self.normal(2, M).to(self.dtype)
        self.forbidden = torch.zeros(2, N, M, dtype=torch.bool)
        if self.kind == "given" and self.reach is not None and self.chances(0.5):
            self.forbidden = torch.rand(2, N, M, generator=self.chance) < 0.3
        self.balance()

    def uniform(self) -> float:
        return torch.rand((), generator=self.chance).item()

    def chances(self, share: float) -> bool:
        return self.uniform() < share

    def one_of(self, choices):
        return choices[int(self.uniform() * len(choices))]

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.chance, dtype=torch.float64)

    def weights(self, *shape):
        """Even ones, or ones spread over 30 decades, some of them perhaps zero; the first has mass."""
        made = torch.rand(shape, generator=self.chance, dtype=torch.float64)
        made = 10 ** (-30 * made) if self.chances(0.5) else made + 0.1
        if self.chances(0.4):
            made = made.masked_fill(torch.rand(shape, generator=self.chance) < 0.3, 0)
        made[..., 0] = 0.5
        return made

    def balance(self):
        """Equal masses where the marginals are hard, those within the lengths."""
        for name, size, k in (("a", self.x.shape[-2], 0), ("b", self.y.shape[-2], 1)):
            weight = getattr(self, name)
            if weight is None:
                continue
            if self.reach is None:
                inside = weight
                if "lengths" in self.options:
                    inside = weight * (torch.arange(size) < self.options["lengths"][k][:, None])
                weight = weight / inside.sum(-1, keepdim=True)
            setattr(self, name, weight)

    def solve(self, dtype: torch.dtype, backend: str):
        # what is rounded is the problem
        parts = (
            None if part is None else part.to(self.dtype).to(dtype)
            for part in (self.x, self.y, self.a, self.b)
        )
        x, y, a, b = parts
        options = {**self.options, "backend": backend}
        if "init" in options:
            options["init"] = tuple(part.to(dtype) for part in options["init"])
        if self.kind == "given":
            cost = torch.cdist(self.x, self.y).to(self.dtype).to(dtype)
            return gk.sinkhorn_from_cost(cost.masked_fill(self.forbidden, math.inf), a, b, **options)
        return gk.sinkhorn(x, y, a, b, cost=self.kind, p=1.5, **options)


def is_due(refusal: ValueError, case: Case, truth) -> bool:
    """Whether a problem is one that the precision cannot hold, as the refusal says."""
    numbers = torch.finfo(case.dtype)
    if str(refusal).startswith("reach"):
        least = min(finite(part).min().item() for part in (truth.f, truth.g))
        return -least / case.reach > math.log(numbers.max)
    largest = max(finite(part).abs().max().item() for part in (truth.f, truth.g))
    return largest / case.options["eps"] * numbers.eps > 0.1


def off(case: Case) -> str | None:
    """How a case comes out wrong, or None."""
    truth = case.solve(torch.float64, "reference")
    try:
        first, again = (case.solve(case.dtype, "native") for _ in range(2))
    except ValueError as refusal:
        return None if is_due(refusal, case, truth) else f"refused: {refusal}"
    for name in ("value", "f", "g", "error", "iterations"):
        if not torch.equal(getattr(first, name), getattr(again, name)):
            return f"equal calls differ in {name}"
    bound = 1e-4 if case.dtype == torch.float32 else 1e-9
    eps, potentials = case.options["eps"], []
    # The error is that of the masses: where these underflow it is 0, and the iteration ends. Before that they
    # do not say any more by what constant the potentials had best move, on the way to the end even earlier.
    numbers = torch.finfo(case.dtype)
    faint = truth.plan().sum((-2, -1)) < numbers.tiny**0.5
    for name in ("f", "g"):
        ours, exact = getattr(first, name).double(), getattr(truth, name)
        if not torch.equal(ours.isinf(), exact.isinf()):
            return f"{name} is infinite elsewhere"
        ours = torch.where(faint[:, None], exact, ours)
        potentials.append((finite(ours), finite(exact)))
    size = max(exact.abs().max().item() for _, exact in potentials)
    if size / eps * torch.finfo(case.dtype).eps > 1e-3:
        return None  # rounding the potentials decides the plan
    # the masses asked for are known to some roundings, and the constant to reach times those
    constant = 0 if case.reach is None else 64 * case.reach * torch.finfo(case.dtype).eps
    for (ours, exact), name in zip(potentials, "fg"):
        worst = (ours - exact).abs().max().item()
        if not worst <= bound * (size + eps) + constant:
            return f"{name} is off by {worst:.2e} beside {size:.2e}"
    plan, exact = first.plan().double(), truth.plan()
    worst = (plan - exact).abs().max().item()
    if not worst <= 30 * bound * (1 + size / eps) * exact.max().item() + numbers.tiny**0.5:
        return f"the plan is off by {worst:.2e} beside {exact.max().item():.2e}"
    allowed = 10 * bound * (truth.value.abs() + bound * size)
    if case.forbidden.any():
        # beside infinite potentials eps (|a| |b| - |P|) stays a difference, which is known to its roundings
        allowed = allowed + 16 * numbers.eps * eps * (1 + exact.sum((-2, -1)))
    worst = (first.value.double() - truth.value).abs()
    if not (worst <= allowed).all():
        return f"the value is off by {worst.max():.2e} beside {truth.value.tolist()}"
    return None


def test_agrees_with_its_definition(simd_level, monkeypatch):
    wrong = []
    for seed in (*KNOWN, *range(SEED, SEED + CASES)):
        case = Case(seed)
        simd_level(case.level)
        with monkeypatch.context() as patch:
            patch.setattr(transport_clouds, "are_large", lambda x, y, streamed=case.streamed: streamed)
            found = off(case)
        if found:
            settings = {name: part for name, part in case.options.items() if name not in ("init", "lengths")}
            held = f"{case.kind}{', streamed' * case.streamed}, {case.level}, {case.dtype}, {settings}"
            wrong.append(f"seed {seed}: {found} ({held})")
    assert not wrong, "\n".join(wrong)
