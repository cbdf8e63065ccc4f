"""Inputs for tests and benchmarks: seeded, float64; the same numbers on whichever device is the default."""

import torch
from torch import Tensor


def _chance(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def cloud(*shape: int, seed: int) -> Tensor:
    """Independent normal numbers of the given shape."""
    made = torch.randn(shape, generator=_chance(seed), dtype=torch.float64, device="cpu")
    return made.to(torch.get_default_device())


def directions(*shape: int, seed: int) -> Tensor:
    """Unit vectors along the last dimension."""
    return torch.nn.functional.normalize(cloud(*shape, seed=seed), dim=-1)


def orthonormal(*shape: int, seed: int) -> Tensor:
    """Bases ``(..., D, K)`` with orthonormal columns."""
    return torch.linalg.qr(cloud(*shape, seed=seed)).Q


def weights(*shape: int, seed: int, zeros: int = 1) -> Tensor:
    """Positive masses summing to one along the last dimension, the first ``zeros`` of them zero."""
    mass = torch.rand(*shape, generator=_chance(seed), dtype=torch.float64, device="cpu") + 0.1
    mass[..., : min(zeros, shape[-1] - 1)] = 0
    return (mass / mass.sum(-1, keepdim=True)).to(torch.get_default_device())
