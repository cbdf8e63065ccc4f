"""Measure a CLIP of the world and write its model card: ``python -m training.evaluate_clip``."""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from geokernels.models import ClipEncoder, load_clip
from geokernels.models.clip import EVALUATION
from geokernels.pipelines.start.silhouettes import draw_silhouettes, signed_distance
from geokernels.world import (
    ATTRIBUTES,
    TEMPLATES,
    describe,
    edit,
    object_frame,
    object_mask,
    render,
    sample_scenes,
)
from geokernels.world.judge import LIKENESS
from geokernels.world.matching import fit_outline
from geokernels.world.renderer import coverage

from .cards import UNSEEN, table, wilson, write
from .clip_attack import attack, radii
from .clip_data import UNSAID, sample_pairs
from .clip_files import MODELS
from .loading import loading

WEIGHTS = Path("geokernels/world/weights")


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


def under_attack(
    encoder: ClipEncoder, n: int, seed: int, *, share: float, target: ClipEncoder, steps: int = 10
) -> dict[str, str]:
    """The same, each picture perturbed within a ``share`` of training's radii to hide it from ``target``."""
    scenes = sample_scenes(n, generator=torch.Generator().manual_seed(UNSEEN + seed))
    pictures, area = render(scenes), object_mask(scenes).sum((1, 2, 3))
    scale, shares = target.model.logit_scale.exp(), {}
    for i, attribute in enumerate(ATTRIBUTES):
        options, hidden = answers(encoder, attribute), answers(target, attribute)
        truth, right = getattr(scenes, attribute), 0
        for rows in torch.arange(n).split(100):
            eps = share * radii(torch.full_like(rows, i), area[rows], pictures[0, 0].numel())
            choices = (scale * hidden).expand(len(rows), -1, -1)
            anywhere = torch.full_like(rows, UNSAID)
            worst = attack(target.model, pictures[rows], choices, truth[rows], anywhere, eps, steps)
            with torch.no_grad():
                said = (encoder.encode_image(worst) @ options.T).argmax(1)
            right += int((said == truth[rows]).sum())
        shares[attribute] = wilson(right, n)
    return shares


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
    parser.add_argument("--model", choices=tuple(MODELS), default="world", help="the one that guides, or not")
    parser.add_argument("--weights", type=Path, help="the packaged ones by default")
    parser.add_argument("--clean", type=Path, help="weights before the robust stage, to compare with")
    parser.add_argument("--card", type=Path, help="the model's own by default")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--attacked", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = MODELS[arguments.model].name
    weights = arguments.weights or WEIGHTS / f"{name}.safetensors"
    # what evaluates is shown what fools the model that guides: that is what it is there to see
    evaluates = arguments.model == "evaluation"
    loaded = EVALUATION if evaluates else "world"
    models = {"shipped" if evaluates else "robust (shipped)": weights} | (
        {"before the robust stage": arguments.clean} if arguments.clean else {}
    )

    accuracy, attacked, aligned, told = {}, {}, {}, {}
    with Progress() as progress:
        bar = progress.add_task("measuring", total=6 * len(models))
        for column, path in models.items():
            encoder = load_clip(loaded, path)
            target = load_clip("world") if evaluates else encoder
            accuracy[column] = zero_shot(encoder, arguments.scenes, arguments.seed)
            progress.advance(bar)
            for share in (0.25, 0.5, 1.0):
                attacked[f"{column}, {share:g} of the radius"] = under_attack(
                    encoder, arguments.attacked, arguments.seed + 1, share=share, target=target
                )
                progress.advance(bar)
            aligned[column] = directions(encoder, 500, arguments.seed + 2)
            progress.advance(bar)
            told[column] = against_outlines(encoder, arguments.attacked, arguments.seed + 5)
            progress.advance(bar)

    record = json.loads(weights.with_suffix(".record.json").read_text())
    blocks = {"training": facts(record), "zero-shot": table(accuracy), "attacked": table(attacked)}
    blocks |= {"directions": table(aligned), "outlines": table(told, "asked shape")}
    libraries = "import open_clip; from geokernels.models import load_clip"
    blocks["loading"] = loading(libraries, f"load_clip({loaded!r})")
    write(arguments.card or Path("docs/model-cards") / f"{name}.md", blocks)


if __name__ == "__main__":
    main()
