"""Measure the world's generator and write its model card: ``python -m training.evaluate_generator``."""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from geokernels.models import Generator, load_generator
from geokernels.world import ATTRIBUTES, judge, render, sample_scenes

from .cards import UNSEEN, wilson, write
from .clip_data import values_of
from .generator import Config
from .generator_scenes import code_of, split
from .loading import loading

WEIGHTS = Path("geokernels/world/weights/world-generator.safetensors")
BATCH = 50


def chance(seed: int) -> torch.Generator:
    """A source of chance that training never used."""
    return torch.Generator().manual_seed(UNSEEN + seed)


@torch.no_grad()
def draw(model: Generator, w: Tensor) -> Tensor:
    """Pictures of w in [0, 1]."""
    return torch.cat([model.synthesis(part) for part in w.split(BATCH)]).clamp(0, 1)


def sample_z(model: Generator, n: int, seed: int) -> Tensor:
    """``n`` random z."""
    return torch.randn(n, model.config.style_dim, generator=chance(seed))


@torch.no_grad()
def sample(model: Generator, n: int, seed: int) -> Tensor:
    """``n`` random w."""
    return model.mapping(sample_z(model, n, seed))


def readable(pictures: Tensor, meant: Tensor) -> str:
    """What the judge can name in samples, whether it is what z stands for, and how evenly values occur.

    Args:
        pictures: ``(n, 3, side, side)``.
        meant: Values that z stands for, ``(n, 5)``.

    Returns:
        A Markdown table.
    """
    seen, n = judge(pictures).values, len(pictures)
    lines = ["| attribute | readable | as z says | rarest value | commonest value |", "|---" * 5 + "|"]
    for i, (attribute, values) in enumerate(ATTRIBUTES.items()):
        named = seen[:, i] >= 0
        share = seen[named, i].bincount(minlength=len(values)) / named.sum().clamp(min=1) * 100
        ends = (f"{values[k]} {share[k]:.1f}" for k in (int(share.argmin()), int(share.argmax())))
        shares = wilson(int(named.sum()), n), wilson(int((seen[:, i] == meant[:, i]).sum()), n)
        lines.append(f"| {attribute} | " + " | ".join((*shares, *ends)) + " |")
    every = wilson(int((seen >= 0).all(1).sum()), n), wilson(int((seen == meant).all(1).sum()), n)
    return "\n".join([*lines, "| all five | " + " | ".join(every) + " | | |"])


def meant_by(z: Tensor) -> Tensor:
    """The values that z stands for, ``(n, 5)``; where they mix, the larger share."""
    part = split(code_of(z, softness=Config().softness))
    large = (part.pop("size")[:, 0] > 0.5).long()
    return torch.stack([large if a == "size" else part[a].argmax(1) for a in ATTRIBUTES], 1)


def evenness(model: Generator, walks: int, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Largest step over the mean step on straight walks between random w: along pictures, ``(walks,)`` twice.

    A step is the root mean square difference of consecutive pictures; first in w, then in z, for comparison.
    """
    share = torch.linspace(0, 1, steps + 1)[:, None]
    ratios = []
    for space in ("w", "z"):
        first, second = torch.randn(2, walks, model.config.style_dim, generator=chance(seed))
        if space == "w":
            first, second = model.mapping(first).detach(), model.mapping(second).detach()
        unevenness = []
        for a, b in zip(first, second):
            codes = a.lerp(b, share)
            pictures = draw(model, codes if space == "w" else model.mapping(codes).detach())
            step = pictures.diff(dim=0).square().mean((1, 2, 3)).sqrt()
            unevenness.append(step.max() / step.mean())
        ratios.append(torch.stack(unevenness))
    return ratios[0], ratios[1]


def describe_evenness(name: str, ratio: Tensor) -> str:
    """One line on the ratios of largest to mean step."""
    spread = (
        f"median {ratio.median():.2f}, 95th percentile {ratio.quantile(0.95):.2f}, worst {ratio.max():.2f}"
    )
    return f"- {name}: {spread}; at most 2 in {wilson(int((ratio <= 2).sum()), len(ratio))}% of walks"


def invert(model: Generator, pictures: Tensor, *, steps: int, seed: int) -> Tensor:
    """W+ codes, ``(n, codes, style_dim)``, of pictures: from the nearest of 500 samples, by Adam."""
    codes = sample(model, 500, seed)
    nearest = torch.cdist(pictures.flatten(1), draw(model, codes).flatten(1)).argmin(1)
    w = codes[nearest][:, None].repeat(1, model.config.codes, 1).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        # a sum, so that pictures do not share a step size
        (model.synthesis(w) - pictures).square().mean((1, 2, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    return w.detach()


def inversion(model: Generator, n: int, steps: int, seed: int) -> str:
    """How well unseen rendered pictures are reproduced from W+, as a Markdown list."""
    scenes = sample_scenes(n, generator=chance(seed))
    pictures = render(scenes)
    inverted = torch.cat([draw(model, invert(model, p, steps=steps, seed=seed)) for p in pictures.split(25)])
    psnr = -10 * (inverted - pictures).square().mean((1, 2, 3)).log10()
    half = 1.96 * psnr.std() / n**0.5
    right = (judge(inverted).values == values_of(scenes)).sum(0).tolist()
    kept = ", ".join(f"{a} {wilson(r, n)}" for a, r in zip(ATTRIBUTES, right))
    return (
        f"- PSNR {psnr.mean():.1f} dB (95% of the mean within {half:.1f}), worst {psnr.min():.1f} dB, "
        f"{wilson(int((psnr >= 22).sum()), n)}% of the pictures at 22 dB or more\n"
        f"- the judge still reads the source's value: {kept}"
    )


def save_grid(model: Generator, path: Path, seed: int) -> None:
    """Five rows of samples, then two walks in w, ten pictures each."""
    w = sample(model, 54, seed)
    walks = [w[i].lerp(w[i + 1], torch.linspace(0, 1, 10)[:, None]) for i in (50, 52)]
    pictures = draw(model, torch.cat([w[:50], *walks]))
    grid = pictures.view(7, 10, 3, 64, 64).permute(0, 3, 1, 4, 2).reshape(7 * 64, 10 * 64, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((grid * 255).round().byte().numpy()).save(path, optimize=True)


def facts(record: dict) -> str:
    """How the weights were made, from the record beside them."""
    config = record["config"]
    stages = [
        f"{stage} stage: {config['steps'][stage]} steps of "
        + (f"{config['codes']} codes" if stage == "mapping" else f"{config['pictures'][stage]} pictures")
        + f", {seconds} s of processor time"
        for stage, seconds in record["seconds"].items()
    ]
    machine = f"{record['threads']} thread(s) of a shared CPU, torch {record['torch']}, seed {config['seed']}"
    size = f"{record['bytes']:,} bytes, sha256 `{record['sha256']}`"
    return "\n".join(f"- {line}" for line in [*stages, f"stopped after {record['done']}", machine, size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--card", type=Path, default=Path("docs/model-cards/world-generator.md"))
    parser.add_argument("--grid", type=Path, default=Path("docs/pictures/generator.png"))
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--walks", type=int, default=100)
    parser.add_argument("--inverted", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200, help="of each inversion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, seed = load_generator(arguments.weights).requires_grad_(False), arguments.seed

    with Progress() as progress:
        bar = progress.add_task("measuring", total=3)
        meant = meant_by(sample_z(model, arguments.samples, seed))
        blocks = {"readable": readable(draw(model, sample(model, arguments.samples, seed)), meant)}
        progress.advance(bar)
        in_w, in_z = evenness(model, arguments.walks, 40, seed + 1)
        named = {"in w": in_w, "in z, for comparison": in_z}
        blocks["evenness"] = "\n".join(describe_evenness(name, ratio) for name, ratio in named.items())
        progress.advance(bar)
        blocks["inversion"] = inversion(model, arguments.inverted, arguments.steps, seed + 2)
        progress.advance(bar)
    save_grid(model, arguments.grid, seed + 3)
    blocks["training"] = facts(json.loads(arguments.weights.with_suffix(".record.json").read_text()))
    libraries = "import safetensors.torch; from geokernels.models import load_generator"
    blocks["loading"] = loading(libraries, "load_generator('world')")
    write(arguments.card, blocks)


if __name__ == "__main__":
    main()
