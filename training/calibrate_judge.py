"""Fit what the judge's margins are worth: ``python -m training.calibrate_judge`` prints ``CALIBRATION``.

The judge reads scenes under every condition of its card, in equal parts. For each attribute, the answers are
sorted by margin and parted, finely where margins are small; the share of right answers in each part, made to
grow with the margin, is the confidence at its mean. The scenes are others than those of the card.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from geokernels.world import ATTRIBUTES, judge, sample_scenes

from .cards import UNSEEN
from .clip_data import values_of
from .evaluate_judge import autoencoders, conditions

CUTS = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # shares of the answers, from the least margin


def fit_chances(margin: Tensor, right: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Margins, from 0 upwards, and the chance that an answer of such a margin is right, likewise.

    Args:
        margin: Of each answer, ``(n,)``, at least 0.
        right: Whether it was, ``(n,)`` bool.
    """
    order = margin.argsort(stable=True)
    cuts = [round(len(order) * cut) for cut in CUTS]
    pooled: list[tuple[Tensor, Tensor]] = []
    for low, high in pairwise(cuts):
        if low == high:
            continue
        part = margin[order[low:high]], right[order[low:high]]
        # pool what would have less chance for more margin, or hardly more margin
        while pooled and (
            _chance(part[1]) <= _chance(pooled[-1][1]) or part[0].mean() < pooled[-1][0].mean() + 1e-3
        ):
            part = tuple(torch.cat(both) for both in zip(pooled.pop(), part))
        pooled.append(part)
    chances = [round(_chance(hits), 4) for _, hits in pooled]
    return (0.0, *(round(m.mean().item(), 3) for m, _ in pooled)), (chances[0], *chances)


def _chance(right: Tensor) -> float:
    """The share of right answers by Laplace's rule, so that none is certain."""
    return (right.sum().item() + 1) / (len(right) + 2)


def calibration(values: Tensor, margins: Tensor, truth: Tensor) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Margins and chances of each attribute, and of the answer "plain" apart; all arguments ``(n, 5)``."""
    fits = {}
    for i, attribute in enumerate((*ATTRIBUTES, "plain")):
        column = min(i, len(ATTRIBUTES) - 1)
        answer = values[:, column]
        given = answer == 0 if attribute == "plain" else answer > 0 if attribute == "texture" else answer >= 0
        fits[attribute] = fit_chances(margins[given, column], (answer == truth[:, column])[given])
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--vae", type=Path, help="folder with vae and vae_tiny; those of the package by default"
    )
    parser.add_argument("--scenes", type=int, default=300, help="under each condition")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(UNSEEN + arguments.seed)
    draws = conditions(*autoencoders(arguments.vae), generator)
    batches = []
    for draw in track(draws.values(), "judging"):
        scenes = sample_scenes(arguments.scenes, generator=generator)
        verdict = judge(draw(scenes))
        batches.append((verdict.values, verdict.margins, values_of(scenes)))
    for attribute, fitted in calibration(*(torch.cat(parts) for parts in zip(*batches))).items():
        print(f'    "{attribute}": {fitted},')


if __name__ == "__main__":
    main()
