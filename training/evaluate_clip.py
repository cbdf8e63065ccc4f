"""Measure the world's CLIP and judge, and write their model cards: ``python -m training.evaluate_clip``."""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from geokernels.models import ClipEncoder, load_clip
from geokernels.pipelines.silhouettes import draw_silhouettes, signed_distance
from geokernels.world import (
    ATTRIBUTES,
    TEMPLATES,
    describe,
    edit,
    judge,
    object_frame,
    object_mask,
    render,
    sample_scenes,
)
from geokernels.world.judge import LIKENESS
from geokernels.world.matching import fit_outline
from geokernels.world.renderer import coverage

from .clip_attack import attack, radii
from .clip_data import UNSAID, sample_pairs, values_of

WEIGHTS = Path("geokernels/world/weights/world-clip.safetensors")
UNSEEN = 2**40  # seeds from here on were never used in training, whose seeds are hashes


def wilson(right: int, n: int) -> str:
    """A share in percent with its 95% confidence interval (Wilson)."""
    z, p = 1.959964, right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) * 100 for sign in (-1, 1))
    return f"{100 * p:.1f} ({low:.1f} to {high:.1f})"


def answers(encoder: ClipEncoder, attribute: str) -> Tensor:
    """Unit text features, ``(values, dim)``: one prompt a value, averaged over every template."""
    prompts = [describe({attribute: value}) for value in ATTRIBUTES[attribute]]
    return F.normalize(encoder.encode_text(prompts, TEMPLATES).mean(1), dim=-1)


@torch.no_grad()
def zero_shot(encoder: ClipEncoder, n: int, seed: int) -> dict[str, str]:
    """Accuracy of each attribute on ``n`` unseen scenes."""
    scenes = sample_scenes(n, generator=torch.Generator().manual_seed(UNSEEN + seed))
    features = torch.cat([encoder.encode_image(part) for part in render(scenes).split(250)])
    said = {a: (features @ answers(encoder, a).T).argmax(1) for a in ATTRIBUTES}
    return {a: wilson(int((said[a] == getattr(scenes, a)).sum()), n) for a in ATTRIBUTES}


def under_attack(encoder: ClipEncoder, n: int, seed: int, *, share: float, steps: int = 10) -> dict[str, str]:
    """The same, each picture perturbed within a ``share`` of training's radii to hide the attribute."""
    scenes = sample_scenes(n, generator=torch.Generator().manual_seed(UNSEEN + seed))
    pictures, area = render(scenes), object_mask(scenes).sum((1, 2, 3))
    scale, found = encoder.model.logit_scale.exp(), {}
    for i, attribute in enumerate(ATTRIBUTES):
        options = answers(encoder, attribute)
        truth, right = getattr(scenes, attribute), 0
        for rows in torch.arange(n).split(100):
            eps = share * radii(torch.full_like(rows, i), area[rows], pictures[0, 0].numel())
            choices = (scale * options).expand(len(rows), -1, -1)
            anywhere = torch.full_like(rows, UNSAID)
            worst = attack(encoder.model, pictures[rows], choices, truth[rows], anywhere, eps, steps)
            with torch.no_grad():
                said = (encoder.encode_image(worst) @ options.T).argmax(1)
            right += int((said == truth[rows]).sum())
        found[attribute] = wilson(right, n)
    return found


@torch.no_grad()
def directions(encoder: ClipEncoder, n: int, seed: int) -> dict[str, str]:
    """Cosine between the pictures' and the captions' direction of one-attribute edits, mean and deviation."""
    generator = torch.Generator().manual_seed(UNSEEN + seed)
    first, second, which = sample_pairs(n, generator=generator)
    move = encoder.encode_image(render(second)) - encoder.encode_image(render(first))
    prompts = [[describe(names) for names in scenes.names()] for scenes in (first, second)]
    before, after = (encoder.encode_text(p, TEMPLATES).mean(1) for p in prompts)
    cosine = F.cosine_similarity(move, after - before, dim=-1)
    chosen = {a: cosine[which == i] for i, a in enumerate(ATTRIBUTES)}
    return {a: f"{c.mean():.3f} ± {c.std():.3f}" for a, c in chosen.items()}


@torch.no_grad()
def against_outlines(encoder: ClipEncoder, n: int, seed: int, *, outlines: int = 64) -> dict[str, str]:
    """How often the asked shape changes a picture more nearly as asked than every outline that is no shape.

    ``n`` edits of the shape; beside each, ``outlines`` random ones that overlap with no shape as far as the
    judge demands.
    """
    generator = torch.Generator().manual_seed(UNSEEN + seed)
    first = sample_scenes(n, generator=generator)
    second = edit(first, "shape", generator=generator)
    prompts = [[describe(names) for names in scenes.names()] for scenes in (first, second)]
    before, after = (encoder.encode_text(p, TEMPLATES).mean(1) for p in prompts)
    start, truth = encoder.encode_image(render(first)), encoder.encode_image(render(second))
    best = F.cosine_similarity(truth - start, after - before, dim=-1)
    won = torch.zeros(n, dtype=torch.bool)
    for i in range(n):
        scene = second[torch.full((outlines,), i)]
        drawn = draw_silhouettes(outlines, generator=generator)
        mask = coverage(scene, signed_distance(drawn, *object_frame(scene)))
        none = fit_outline(mask).likeness < LIKENESS
        seen = encoder.encode_image(render(scene[none], mask=mask[none]))
        liking = F.cosine_similarity(seen - start[i], (after - before)[i], dim=-1)
        won[i] = best[i] > liking.amax()
    chosen = {name: won[second.shape == k] for k, name in enumerate(ATTRIBUTES["shape"])}
    shares = {name: wilson(int(part.sum()), len(part)) for name, part in chosen.items()}
    return {"all": wilson(int(won.sum()), n), **shares}


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


def table(columns: dict[str, dict[str, str]], kind: str = "attribute") -> str:
    """A Markdown table with one row a key."""
    lines = [f"| {kind} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows = next(iter(columns.values()))
    lines += [f"| {a} | " + " | ".join(c[a] for c in columns.values()) + " |" for a in rows]
    return "\n".join(lines)


def confusion_table(attribute: str, matrix: Tensor) -> str:
    """A Markdown confusion matrix, truth by verdict."""
    values = ATTRIBUTES[attribute]
    lines = [f"| {attribute} | " + " | ".join((*values, "none")) + " |", "|---" * (len(values) + 2) + "|"]
    lines += [f"| {v} | " + " | ".join(map(str, row)) + " |" for v, row in zip(values, matrix.tolist())]
    return "\n".join(lines)


def write(card: Path, blocks: dict[str, str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a card, for each block."""
    text = card.read_text()
    for name, block in blocks.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(stop) != 1:
            raise ValueError(f"{card} must mark the block {name!r} once with {start} and {stop}")
        before, after = text.split(start)[0], text.split(stop)[1]
        text = f"{before}{start}\n{block}\n{stop}{after}"
    partial = card.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(card)


def facts(record: dict) -> str:
    """How the weights were made, from the record beside them."""
    config = record["config"]
    batch = {"robust": 2 * config["robust_pairs"]}
    stages = [
        f"{stage} stage: {config['steps'][stage]} steps of {batch.get(stage, 2 * config['pairs'])} pictures, "
        f"{seconds} s"
        for stage, seconds in record["seconds"].items()
    ]
    machine = f"{record['threads']} thread(s) of a shared CPU, torch {record['torch']}, seed {config['seed']}"
    size = f"{record['bytes']:,} bytes, sha256 `{record['sha256']}`"
    return "\n".join(f"- {line}" for line in [*stages, machine, size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--clean", type=Path, help="weights before the robust stage, to compare with")
    parser.add_argument("--cards", type=Path, default=Path("docs/model-cards"))
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--attacked", type=int, default=200)
    parser.add_argument("--judged", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = {"robust (shipped)": arguments.weights} | (
        {"before the robust stage": arguments.clean} if arguments.clean else {}
    )

    accuracy, attacked, aligned, told = {}, {}, {}, {}
    with Progress() as progress:
        bar = progress.add_task("measuring", total=6 * len(models) + 2)
        for name, path in models.items():
            encoder = load_clip("world", path)
            accuracy[name] = zero_shot(encoder, arguments.scenes, arguments.seed)
            progress.advance(bar)
            for share in (0.25, 0.5, 1.0):
                found = under_attack(encoder, arguments.attacked, arguments.seed + 1, share=share)
                attacked[f"{name}, {share:g} of the radius"] = found
                progress.advance(bar)
            aligned[name] = directions(encoder, 500, arguments.seed + 2)
            progress.advance(bar)
            told[name] = against_outlines(encoder, arguments.attacked, arguments.seed + 5)
            progress.advance(bar)
        judged, confusion = judge_clean(arguments.judged, arguments.seed + 3)
        progress.advance(bar)
        disturbed = judge_disturbed(1000, arguments.seed + 4)
        progress.advance(bar)

    record = json.loads(arguments.weights.with_suffix(".record.json").read_text())
    blocks = {"training": facts(record), "zero-shot": table(accuracy), "attacked": table(attacked)}
    blocks |= {"directions": table(aligned), "outlines": table(told, "asked shape")}
    write(arguments.cards / "world-clip.md", blocks)
    matrices = "\n\n".join(confusion_table(a, m) for a, m in confusion.items())
    clean = {f"{arguments.judged:,} clean renders": judged}
    write(arguments.cards / "world-judge.md", {"accuracy": table(clean | disturbed), "confusion": matrices})


if __name__ == "__main__":
    main()
