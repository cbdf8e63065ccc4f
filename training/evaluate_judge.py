"""Measure the judge and write its card: ``python -m training.evaluate_judge``."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels.world import ATTRIBUTES, judge, render, sample_scenes

from .cards import UNSEEN, confusion_table, table, wilson, write
from .clip_data import values_of


def judge_clean(n: int, seed: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The judge's accuracy on ``n`` clean renders, and its confusion matrices with a column for None."""
    scenes = sample_scenes(n, generator=torch.Generator().manual_seed(UNSEEN + seed))
    seen, truth = judge(render(scenes)).values, values_of(scenes)
    accuracy, confusion = {}, {}
    for i, (attribute, values) in enumerate(ATTRIBUTES.items()):
        accuracy[attribute] = wilson(int((seen[:, i] == truth[:, i]).sum()), n)
        column = torch.where(seen[:, i] < 0, len(values), seen[:, i])
        cell = truth[:, i] * (len(values) + 1) + column
        confusion[attribute] = cell.bincount(minlength=len(values) * (len(values) + 1)).view(len(values), -1)
    return accuracy, confusion


def judge_disturbed(n: int, seed: int) -> dict[str, dict[str, str]]:
    """The judge's accuracy on pictures of other sizes, noisy and blurred ones."""
    generator = torch.Generator().manual_seed(UNSEEN + seed)
    scenes = sample_scenes(n, generator=generator)
    clean, truth = render(scenes), values_of(scenes)
    pictures = {
        "32 x 32": render(scenes, 32),
        "128 x 128": render(scenes, 128),
        "noise 0.05": (clean + 0.05 * torch.randn(clean.shape, generator=generator)).clamp(0, 1),
        "3 x 3 mean": F.avg_pool2d(F.pad(clean, (1, 1, 1, 1), mode="replicate"), 3, 1),
    }
    found = {}
    for name, batch in pictures.items():
        right = (judge(batch).values == truth).sum(0).tolist()
        found[name] = {a: wilson(r, n) for a, r in zip(ATTRIBUTES, right)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", type=Path, default=Path("docs/model-cards/world-judge.md"))
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    judged, confusion = judge_clean(arguments.scenes, arguments.seed + 3)
    disturbed = judge_disturbed(1000, arguments.seed + 4)
    matrices = "\n\n".join(confusion_table(a, m) for a, m in confusion.items())
    clean = {f"{arguments.scenes:,} clean renders": judged}
    write(arguments.card, {"accuracy": table(clean | disturbed), "confusion": matrices})


if __name__ == "__main__":
    main()
