"""Measure the world's flow model and write its card: ``python -m training.evaluate_flow``.

Every figure is over scenes and prompts whose combination of attributes training never showed. The pictures
are those of diffusers' own pipeline without the rows of zeros that it puts in the place of T5
(``max_sequence_length=0``), as the editors of geokernels read it; some beside them are with these rows, which
make a pass three times as expensive.
"""

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from geokernels.models import load_diffusion
from geokernels.world import ATTRIBUTES, render
from geokernels.world.held_out import sample_unseen

from .cards import UNSEEN, confusion_table, table, write
from .evaluate_diffusion import (
    BATCH,
    decibels,
    decode,
    encode,
    grid,
    judged,
    made,
    prompts_of,
    sample,
    spread,
)
from .flow_text import ZEROS
from .loading import loading

LIBRARIES = "from diffusers import StableDiffusion3Pipeline; from geokernels.models import load_diffusion"
ORDERS = {"Euler": 1, "midpoint": 2}  # evaluations a step


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, levels: Tensor, *, order: int
) -> Tensor:
    """Follow ``velocity`` of state and level through ``levels``, by Euler or by the midpoint rule."""
    for s, after in pairwise(levels):
        v, step = velocity(x, s), after - s
        if order == 2:
            v = velocity(x + step / 2 * v, s + step / 2)
        x = x + step * v
    return x


@torch.no_grad()
def there_and_back(
    pipeline, latents: Tensor, prompts: list[str], *, steps: int, order: int, length: int, advance=None
) -> Tensor:
    """Latents after inversion to noise and sampling from it, both by ``order`` and at guidance 1."""
    done = []
    for i in range(0, len(prompts), BATCH):
        rows, _, pooled, _ = pipeline.encode_prompt(
            prompts[i : i + BATCH], None, None, do_classifier_free_guidance=False, max_sequence_length=length
        )

        def velocity(x: Tensor, s: Tensor, rows=rows, pooled=pooled) -> Tensor:
            return pipeline.transformer(
                x,
                encoder_hidden_states=rows,
                pooled_projections=pooled,
                timestep=(1000 * s).expand(len(x)),
            ).sample

        pipeline.scheduler.set_timesteps(steps)
        x, levels = latents[i : i + BATCH], pipeline.scheduler.sigmas
        x = integrate(velocity, x, levels.flip(0), order=order)
        done.append(integrate(velocity, x, levels, order=order))
        if advance:
            advance(len(x))
    return torch.cat(done)


def pictures_of(pipeline, latents: Tensor) -> Tensor:
    """Pictures in [0, 1] of latents as the transformer has them."""
    config = pipeline.vae.config
    return decode(pipeline.vae, latents / config.scaling_factor + (config.shift_factor or 0))


def restored(pipeline, drawn, *, steps: int, length: int, advance=None) -> str:
    """A table of how well renders come back from the noise that they are inverted to."""
    pictures = render(drawn)
    latents, prompts = encode(pipeline, pictures), prompts_of(drawn)
    plain = pictures_of(pipeline, latents)
    lines = ["| | mean dB | lowest 5% below |", "|---|---|---|"]
    lines.append(f"| AutoencoderKL | {spread(decibels(plain, pictures))} |")
    for name, order in ORDERS.items():
        how = {"steps": steps, "order": order, "length": length, "advance": advance}
        back = pictures_of(pipeline, there_and_back(pipeline, latents, prompts, **how))
        passes = f"{name}, {2 * order * steps} passes there and back"
        lines.append(f"| {passes}, against the render | {spread(decibels(back, pictures))} |")
        lines.append(
            f"| the same, against what the AutoencoderKL makes of it | {spread(decibels(back, plain))} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", default="world-flow", help="'world-flow' or a folder")
    parser.add_argument("--card", type=Path, default=Path("docs/model-cards/world-flow.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/world-flow.png"))
    parser.add_argument(
        "--record", type=Path, default=Path("geokernels/world/weights/world-flow.record.json")
    )
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--with-zeros", type=int, default=128, help="of the prompts, how many with zeros too")
    parser.add_argument("--inverted", type=int, default=128)
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_diffusion(arguments.pipeline)

    # what can fail at once comes first
    blocks = {
        "training": made(json.loads(arguments.record.read_text())),
        "loading": loading(LIBRARIES, f"load_diffusion({arguments.pipeline!r})"),
    }
    scenes, drawn = (
        sample_unseen(n, generator=torch.Generator().manual_seed(UNSEEN + arguments.seed + i))
        for i, n in enumerate((arguments.prompts, arguments.inverted))
    )
    samples = {}
    with Progress() as progress:
        for length, count in ((0, arguments.prompts), (ZEROS, arguments.with_zeros)):
            bar = progress.add_task(f"sampling, {length} zeros", total=count)
            samples[length] = sample(
                pipeline,
                prompts_of(scenes[:count]),
                cfg=arguments.cfg,
                steps=arguments.steps,
                seed=arguments.seed,
                advance=lambda k, bar=bar: progress.advance(bar, k),
                max_sequence_length=length,
            )
        bar = progress.add_task("inverting", total=len(ORDERS) * arguments.inverted)
        blocks["restored"] = restored(
            pipeline,
            drawn,
            steps=arguments.steps,
            length=0,
            advance=lambda k: progress.advance(bar, k),
        )
    shares, matrices = judged(samples[0], scenes)
    asked = {f"{arguments.prompts} prompts": shares}
    for i, size in enumerate(ATTRIBUTES["size"]):
        which = torch.nonzero(scenes.size == i)[:, 0]
        asked[f"{len(which)} of {size} objects"] = judged(samples[0][which], scenes[which])[0]
    count = len(samples[ZEROS])
    asked[f"the first {count}"] = judged(samples[0][:count], scenes[:count])[0]
    asked["the same with zeros"] = judged(samples[ZEROS], scenes[:count])[0]
    blocks |= {
        "judged": table(asked),
        "confusion": "\n\n".join(confusion_table(a, m) for a, m in matrices.items()),
    }
    write(arguments.card, blocks)
    grid(samples[0][:48], 12, arguments.picture)


if __name__ == "__main__":
    main()
