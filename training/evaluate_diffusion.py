"""Measure the world's diffusion model and write its card: ``python -m training.evaluate_diffusion``.

Every figure is over scenes and prompts whose combination of attributes training never showed, save those of
the autoencoders, whose training had no captions: for them, the pictures are unseen.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from geokernels.models import load_diffusion, load_tiny_autoencoder
from geokernels.world import ATTRIBUTES, Scenes, caption, judge, render
from geokernels.world.held_out import sample_unseen

from .cards import UNSEEN, confusion, confusion_table, table, wilson, write
from .clip_data import values_of
from .loading import loading

BATCH = 32
# diffusers finds its classes when they are first asked for
LIBRARIES = "from diffusers import StableDiffusionPipeline; from geokernels.models import load_diffusion"


def prompts_of(scenes: Scenes) -> list[str]:
    """A bare caption of each scene that names every attribute."""
    return caption(scenes)


def sample(
    pipeline, prompts: list[str], *, cfg: float, steps: int, seed: int, advance=None, **options
) -> Tensor:
    """Pictures of ``prompts`` (n, 3, H, W) in [0, 1], by the pipeline's own scheduler."""
    generator = torch.Generator().manual_seed(UNSEEN + seed)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for i in range(0, len(prompts), BATCH):
        with torch.no_grad():
            drawn = pipeline(
                prompts[i : i + BATCH],
                num_inference_steps=steps,
                guidance_scale=cfg,
                generator=generator,
                output_type="pt",
                **options,
            )
        pictures.append(drawn.images.float())
        if advance:
            advance(len(drawn.images))
    return torch.cat(pictures)


def judged(pictures: Tensor, scenes: Scenes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What of the asked the judge finds: shares, all five at once included; and confusion matrices."""
    seen, truth = judge(pictures).values, values_of(scenes)
    n, right = len(truth), seen == truth
    shares = {a: wilson(int(right[:, i].sum()), n) for i, a in enumerate(ATTRIBUTES)}
    shares["all five"] = wilson(int(right.all(1).sum()), n)
    return shares, confusion(seen, truth)


@torch.no_grad()
def encode(pipeline, pictures: Tensor) -> Tensor:
    """Scaled latents of pictures in [0, 1]."""
    vae = pipeline.vae
    parts = [vae.encode(x * 2 - 1).latent_dist.mode() for x in pictures.split(BATCH)]
    return (torch.cat(parts) - (vae.config.shift_factor or 0)) * vae.config.scaling_factor


@torch.no_grad()
def decode(decoder, latents: Tensor) -> Tensor:
    """Pictures in [0, 1] of latents, which ``decoder`` scales itself."""
    return torch.cat([(decoder.decode(x).sample / 2 + 0.5).clamp(0, 1) for x in latents.split(BATCH)])


@torch.no_grad()
def there_and_back(pipeline, latents: Tensor, prompts: list[str], *, steps: int, advance=None) -> Tensor:
    """Latents after DDIM inversion to noise and DDIM sampling from it, both at guidance 1."""
    inverse = DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    done = []
    for i in range(0, len(prompts), BATCH):
        words, _ = pipeline.encode_prompt(prompts[i : i + BATCH], "cpu", 1, False)
        x = latents[i : i + BATCH]
        for scheduler in (inverse, pipeline.scheduler):
            scheduler.set_timesteps(steps)
            for step in scheduler.timesteps:
                x = scheduler.step(pipeline.unet(x, step, words).sample, step, x).prev_sample
        done.append(x)
        if advance:
            advance(len(x))
    return torch.cat(done)


def decibels(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair, (n,)."""
    return -10 * (pictures - others).square().mean((1, 2, 3)).log10()


def spread(values: Tensor) -> str:
    """Mean with its 95% interval, and the lowest twentieth."""
    half = 1.96 * values.std() / len(values) ** 0.5
    return f"{values.mean():.2f} ± {half:.2f} | {values.quantile(0.05):.2f}"


def grid(pictures: Tensor, columns: int, path: Path) -> None:
    """Save pictures (n, 3, H, W) side by side as a PNG."""
    n, _, H, W = pictures.shape
    pictures = pictures[: n - n % columns].view(-1, columns, 3, H, W)
    whole = pictures.permute(0, 3, 1, 4, 2).reshape(-1, columns * W, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((whole * 255).round().byte().numpy()).save(path, optimize=True)


def made(record: dict) -> str:
    """How the weights were made, from the record beside them."""
    lines = [
        f"{name}: {part['steps']:,} steps of {part['batch']} examples, {part['seconds']:,} s"
        for name, part in record["made"].items()
    ]
    machine = f"{record['threads']} thread(s) of a shared CPU, torch {record['torch']}"
    size = f"{record['bytes']:,} bytes in {len(record['sha256'])} files, half precision"
    seed = f"seed {list(record['made'].values())[-1]['config']['seed']}"
    return "\n".join(f"- {line}" for line in [*lines, f"{machine}, {seed}", size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", default="world", help="'world' or a folder")
    parser.add_argument("--card", type=Path, default=Path("docs/model-cards/world-diffusion.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/world-diffusion.png"))
    parser.add_argument(
        "--record", type=Path, default=Path("geokernels/world/weights/world-diffusion.record.json")
    )
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--renders", type=int, default=512)
    parser.add_argument("--inverted", type=int, default=128)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline, tiny = load_diffusion(arguments.pipeline), None
    tiny = load_tiny_autoencoder(arguments.pipeline)

    # what can fail at once comes first
    blocks = {
        "training": made(json.loads(arguments.record.read_text())),
        "loading": loading(LIBRARIES, f"load_diffusion({arguments.pipeline!r})"),
    }
    scenes = sample_unseen(
        arguments.prompts, generator=torch.Generator().manual_seed(UNSEEN + arguments.seed)
    )
    drawn = sample_unseen(
        arguments.renders, generator=torch.Generator().manual_seed(UNSEEN + arguments.seed + 1)
    )
    pictures, n = render(drawn), arguments.inverted
    latents = encode(pipeline, pictures)
    large = decode(pipeline.vae, latents / pipeline.vae.config.scaling_factor)
    small = decode(tiny, latents)
    with Progress() as progress:
        bar = progress.add_task("sampling", total=arguments.prompts)
        samples = sample(
            pipeline,
            prompts_of(scenes),
            cfg=arguments.cfg,
            steps=arguments.steps,
            seed=arguments.seed,
            advance=lambda k: progress.advance(bar, k),
        )
        bar = progress.add_task("inverting", total=n)
        back = there_and_back(
            pipeline,
            latents[:n],
            prompts_of(drawn[:n]),
            steps=arguments.steps,
            advance=lambda k: progress.advance(bar, k),
        )
    back = decode(pipeline.vae, back / pipeline.vae.config.scaling_factor)
    shares, matrices = judged(samples, scenes)
    asked = {f"{arguments.prompts} prompts": shares}
    for i, size in enumerate(ATTRIBUTES["size"]):
        which = torch.nonzero(scenes.size == i)[:, 0]
        asked[f"{len(which)} of {size} objects"] = judged(samples[which], scenes[which])[0]
    through = {"AutoencoderKL": judged(large, drawn)[0], "AutoencoderTiny": judged(small, drawn)[0]}
    restored = [
        ("AutoencoderKL", spread(decibels(large, pictures))),
        ("AutoencoderTiny", spread(decibels(small, pictures))),
        ("DDIM inversion and back, against the render", spread(decibels(back, pictures[:n]))),
        ("the same, against what the AutoencoderKL makes of the render", spread(decibels(back, large[:n]))),
    ]
    lines = ["| | mean dB | lowest 5% below |", "|---|---|---|", *(f"| {k} | {v} |" for k, v in restored)]
    blocks |= {
        "judged": table(asked),
        "restored": "\n".join(lines),
        "through": table(through),
        "confusion": "\n\n".join(confusion_table(a, m) for a, m in matrices.items()),
    }
    write(arguments.card, blocks)
    grid(samples[:48], 12, arguments.picture)


if __name__ == "__main__":
    main()
