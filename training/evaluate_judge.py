"""Measure the judge and write its card: ``python -m training.evaluate_judge``.

Clean renders, and others disturbed: at other sizes, blurred, noisy, compressed, and as the autoencoders of
the world's diffusion pipeline give them back. For each, how often the judge is right, how often it says "none
of these", and how often the answers that it gives are right.
"""

import argparse
import io
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from rich.progress import track
from torch import Tensor

from geokernels._files import write_text
from geokernels.models import load_diffusion, load_tiny_autoencoder
from geokernels.world import ATTRIBUTES, Scenes, judge, render, sample_scenes

from .cards import UNSEEN, confusion, confusion_table, table, wilson, write
from .clip_data import values_of

BATCH = 50
SIZES = (32, 128)
BLURS = (0.5, 1.0, 1.5, 2.0, 3.0)  # standard deviations in pixels of 64
NOISES = (0.05, 0.075, 0.1, 0.15)  # standard deviations of a channel
QUALITIES = (75, 50, 30, 10)  # of JPEG, with Pillow's chroma subsampling
BINS = (0.0, 0.5, 0.7, 0.9, 0.97, 0.99, 1.01)  # of confidence
SURE = 0.9  # the least confidence of the tables that ask for one


def blurred(pictures: Tensor, *, sigma: float) -> Tensor:
    """Pictures (n, 3, H, W) under a Gaussian; their borders go on outside."""
    reach = int(3 * sigma + 0.5)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weight = (weight / weight.sum()).expand(3, 1, 1, -1)
    wide = F.pad(pictures, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, weight, groups=3), weight.transpose(2, 3), groups=3)


def noisy(pictures: Tensor, *, sigma: float, generator: torch.Generator) -> Tensor:
    """Pictures with independent Gaussian noise in every channel, clipped to [0, 1]."""
    return (pictures + sigma * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)


def compressed(pictures: Tensor, *, quality: int) -> Tensor:
    """Pictures as JPEG gives them back."""
    arrays = []
    for picture in (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        arrays.append(np.array(Image.open(buffer)))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255


@torch.no_grad()
def restored(pictures: Tensor, *, vae: torch.nn.Module, decoder: torch.nn.Module | None = None) -> Tensor:
    """Pictures as an autoencoder gives them back, decoded by ``decoder`` if it is another."""
    decoded = []
    for part in pictures.split(BATCH):
        latents = vae.encode(part * 2 - 1).latent_dist.mode()
        if decoder is not None:  # whose latents are those the U-Net sees
            latents = latents * vae.config.scaling_factor
        decoded.append((decoder or vae).decode(latents).sample / 2 + 0.5)
    return torch.cat(decoded).clamp(0, 1)


def autoencoders(folder: Path | None) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The ``vae`` and ``vae_tiny`` of a folder, or of the package where it is None."""
    if folder is None:
        return load_diffusion("world").vae, load_tiny_autoencoder("world")
    vae = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True, local_files_only=True)
    return vae.eval(), load_tiny_autoencoder(folder)


def conditions(vae, tiny, generator: torch.Generator) -> dict[str, Callable[[Scenes], Tensor]]:
    """How pictures of scenes are made under each condition, by its name in the card."""

    def after(disturb: Callable[..., Tensor], **how) -> Callable[[Scenes], Tensor]:
        return lambda scenes: disturb(render(scenes), **how)

    ways = {"clean": render} | {f"{size} x {size}": partial(render, size=size) for size in SIZES}
    ways |= {f"blur {sigma:g}": after(blurred, sigma=sigma) for sigma in BLURS}
    ways |= {f"noise {sigma:g}": after(noisy, sigma=sigma, generator=generator) for sigma in NOISES}
    ways |= {f"JPEG {quality}": after(compressed, quality=quality) for quality in QUALITIES}
    ways["AutoencoderKL"] = after(restored, vae=vae)
    ways["AutoencoderTiny"] = after(restored, vae=vae, decoder=tiny)
    return ways


class Reading(NamedTuple):
    """What the judge said under one condition, ``(n, 5)`` each."""

    values: Tensor
    confidence: Tensor
    truth: Tensor


def shares(readings: dict[str, Reading], *, least: float = 0.0) -> dict[str, str]:
    """Tables of what is right, of what has no answer, and of what is right among the answers given.

    Args:
        readings: By condition.
        least: Confidence below which an answer counts as none.
    """
    columns_of = {name: {a: {} for a in ATTRIBUTES} for name in ("right", "none", "answers")}
    for condition, (values, confidence, truth) in readings.items():
        given = (values >= 0) & (confidence >= least)
        right, n = given & (values == truth), len(values)
        for i, a in enumerate(ATTRIBUTES):
            hits, answers = int(right[:, i].sum()), int(given[:, i].sum())
            columns_of["right"][a][condition] = wilson(hits, n)
            columns_of["none"][a][condition] = wilson(n - answers, n)
            columns_of["answers"][a][condition] = wilson(hits, answers) if answers else "no answer"
    return {name: table(columns, "condition") for name, columns in columns_of.items()}


def reliability(readings: dict[str, Reading]) -> str:
    """What is right among answers of like confidence, over every condition, as a table."""
    values, confidence, truth = (torch.cat(parts) for parts in zip(*readings.values()))
    columns = {a: {} for a in ATTRIBUTES}
    for low, high in pairwise(BINS):
        inside = (values >= 0) & (confidence >= low) & (confidence < high)
        for i, a in enumerate(ATTRIBUTES):
            k = inside[:, i]
            stated = f"{100 * confidence[k, i].mean():.1f}"
            right = int((values == truth)[k, i].sum())
            cell = f"{stated}: {wilson(right, int(k.sum()))} of {int(k.sum()):,}" if k.any() else "none"
            columns[a][f"{100 * low:g} to {100 * min(high, 1):g}"] = cell
    return table(columns, "confidence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", type=Path, default=Path("docs/model-cards/world-judge.md"))
    parser.add_argument(
        "--vae", type=Path, help="folder with vae and vae_tiny; those of the package by default"
    )
    parser.add_argument("--clean", type=int, default=5000, help="clean renders")
    parser.add_argument("--scenes", type=int, default=500, help="under each other condition")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(UNSEEN + arguments.seed)
    readings = {}
    for name, draw in track(conditions(*autoencoders(arguments.vae), generator).items(), "judging"):
        n = arguments.clean if name == "clean" else arguments.scenes
        scenes = sample_scenes(n, generator=generator)
        verdict = judge(draw(scenes))
        readings[name] = Reading(verdict.values, verdict.confidence, values_of(scenes))

    blocks = shares(readings)
    sure = shares(readings, least=SURE)
    blocks |= {"sure-none": sure["none"], "sure-answers": sure["answers"]}
    matrices = {name: confusion(values, truth) for name, (values, _, truth) in readings.items()}
    blocks["reliability"] = reliability(
        {n: Reading(*(p[: arguments.scenes] for p in r)) for n, r in readings.items()}
    )
    blocks["confusion"] = "\n\n".join(confusion_table(a, m) for a, m in matrices["clean"].items())
    blocks["confusion-blurred"] = "\n\n".join(
        confusion_table(a, matrices["blur 2"][a]) for a in ("shape", "texture")
    )
    write(arguments.card, blocks)
    lines = [
        f"{json.dumps(name)}: {json.dumps({a: m.tolist() for a, m in matrix_of.items()})}"
        for name, matrix_of in matrices.items()
    ]
    write_text(arguments.card.with_suffix(".json"), "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
