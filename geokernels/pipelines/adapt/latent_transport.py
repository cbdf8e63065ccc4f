r"""What an adaptation can start from: the style codes of a network, carried to those that look as asked.

Some samples of a network may show what a text asks for already. Both all style codes and those of such
samples are approximated by Gaussians. The optimal transport between two Gaussians is an affine map,

$$T(w) = \mu' + (w - \mu)\,A, \qquad
  A = \Sigma^{-1/2} \big(\Sigma^{1/2} \Sigma' \Sigma^{1/2}\big)^{1/2} \Sigma^{-1/2}$$

which moves what those samples have in common and leaves alone in what they differ. A network reads its
codes by affine layers, so that the map disappears into their weights: the result is a network like any
other. The search computes no gradients. There is no published counterpart.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...losses.directional import unit_rows
from ...models.stylegan2 import Generator
from ...models.stylegan2_layers import ModulatedConv
from ..guidance.terms import Texts

SHRINKAGES = (0.1, 0.3, 0.6)  # of the chosen codes' covariance to that of all, for they are few
EXTENTS = (0.75, 1.0, 1.25, 1.5)  # how far along the map, 1 being where it leads
TRIED = 24  # codes by which a map is judged
MAPS = len(SHRINKAGES) * len(EXTENTS)
RIDGE = 1e-3  # share of the mean variance added to every variance


class CodeMap(NamedTuple):
    """An affine map of style codes, ``w @ turn + shift``."""

    turn: Tensor  # (D, D)
    shift: Tensor  # (D,)

    def __call__(self, w: Tensor) -> Tensor:
        """Map codes ``(..., D)``."""
        return w @ self.turn + self.shift

    def part(self, extent: float) -> "CodeMap":
        """The map that goes ``extent`` of the way, 0 being nowhere; beyond 1 it goes on."""
        stay = torch.eye(len(self.turn), dtype=self.turn.dtype, device=self.turn.device)
        return CodeMap(stay.lerp(self.turn, extent), extent * self.shift)


class Start(NamedTuple):
    """The best of the maps that were tried."""

    map: CodeMap
    cosine: float  # of the change of the pictures with that of the texts
    score: float  # mean of that and of the cosine with the target text


def gaussian_map(w: Tensor, chosen: Tensor, *, shrinkage: float) -> CodeMap:
    """The optimal transport from the Gaussian of ``w`` to that of ``chosen``.

    Args:
        w: Codes, ``(N, D)``.
        chosen: Codes among them, ``(n, D)``, at least one.
        shrinkage: Share of the covariance of ``w`` in that of ``chosen``, in [0, 1].

    Returns:
        The map, in the dtype of ``w``; computed in float64.
    """
    mean, goal = w.double().mean(0), chosen.double().mean(0)
    before, after = _covariance(w.double(), mean), _covariance(chosen.double(), goal)
    ridge = RIDGE * before.diagonal().mean() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    before = before + ridge
    after = (1 - shrinkage) * (after + ridge) + shrinkage * before
    root, inverse = _power(before, 0.5), _power(before, -0.5)
    turn = inverse @ _power(root @ after @ root, 0.5) @ inverse
    return CodeMap(turn.to(w), (goal - mean @ turn).to(w))


def search_map(
    w: Tensor, scores: Tensor, likeness: Callable[[CodeMap], tuple[float, float]], *, share: float
) -> Start:
    """The map to the codes of the highest ``scores`` that makes the pictures most like what is asked.

    Args:
        w: Codes, ``(N, D)``.
        scores: How much the picture of each shows what is asked, ``(N,)``.
        likeness: A map to two cosines, those of :class:`~.guidance.Likeness`, over some pictures.
        share: Of the codes to carry all others to.
    """
    chosen = w[scores.topk(max(2, round(share * len(w)))).indices]
    starts = []
    for shrinkage in SHRINKAGES:
        whole = gaussian_map(w, chosen, shrinkage=shrinkage)
        for extent in EXTENTS:
            part = whole.part(extent)
            along, target = likeness(part)
            starts.append(Start(part, along, (along + target) / 2))
    return max(starts, key=lambda start: start.score)


@torch.no_grad()
def find_start(
    w: Tensor,
    seen: Sequence[Tensor],
    see: Callable[[Tensor], Sequence[Tensor]],
    texts: Sequence[Texts],
    weights: Sequence[float],
    *,
    share: float,
) -> Start:
    """The map of codes whose pictures change most as the texts do.

    Args:
        w: Codes, ``(N, D)``.
        seen: Features of their pictures, ``(N, D)`` per encoder.
        see: Codes to features of their pictures.
        texts: What each encoder makes of the prompts.
        weights: Of the encoders, with a sum of 1.
        share: Of the codes to carry all others to.
    """
    asked = [unit_rows((t.after - t.before).mean(0)) for t in texts]
    goals = [unit_rows(t.after.mean(0)) for t in texts]

    def likeness(codes: CodeMap) -> tuple[float, float]:
        along = target = 0.0
        for i, features in enumerate(see(codes(w[:TRIED]))):
            change = unit_rows(features - seen[i][:TRIED])
            along += weights[i] * (change @ asked[i]).mean().item()
            target += weights[i] * (features @ goals[i]).mean().item()
        return along, target

    scores = sum(weight * (features @ towards) for weight, features, towards in zip(weights, seen, asked))
    return search_map(w, scores, likeness, share=share)


@torch.no_grad()
def absorb(model: Generator, codes: CodeMap) -> None:
    """Change ``model`` so that it draws of ``w`` what it drew of ``codes(w)``; in place."""
    for layer in model.modules():
        if isinstance(layer, ModulatedConv):
            linear = layer.modulation
            scale = linear.rate * linear.weight.shape[1] ** -0.5
            linear.bias += scale * (linear.weight @ codes.shift) / linear.rate
            linear.weight.copy_(linear.weight @ codes.turn.T)


def _covariance(x: Tensor, mean: Tensor) -> Tensor:
    rows = x - mean
    return rows.T @ rows / len(rows)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    # rounding can leave an eigenvalue of a product just below 0
    return vectors * values.clamp(min=1e-300).pow(exponent) @ vectors.T
