"""Time and memory of an OIG edit, ours beside the published pattern of work, side by side in one run.

    python -m benchmarks.cost.edit_time --steps 12 --out benchmarks/results/editing-time.json
    python -m benchmarks.cost.edit_time --shapes sd14 --device cuda --out editing-time-sd14.json

The first command edits one picture of the embedded model on one thread. The second, for a GPU, has the shapes
of Stable Diffusion 1.4 and ViT-B/32 with random weights, 512 pixels. Sources are drawn by the model.

  ms a step  by the clock, the source's part included, median over all steps; the variants' steps are taken in
             turns, so that whatever else runs disturbs all
  peak MiB   the most that lives at one time in the whole edit, models left out; on the CPU counted tensor by
             tensor, on CUDA what torch allocated
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from geokernels.models import load_clip, load_diffusion, load_tiny_autoencoder
from geokernels.models.denoiser import Denoiser
from geokernels.pipelines import OIGConfig, draw_source
from geokernels.pipelines.edit.ddim import schedule_of
from geokernels.pipelines.edit.oig import OIGEdit

from ..harness.machine import machine
from .counting import MIB, Memory
from .edit import PLAIN, PUBLISHED, models_of_shape
from .published.oig import PublishedPattern
from .table import Column, publish

COLUMNS = (Column("ms a step", "ms", ".1f"), Column("peak MiB", "mib", ".1f"))

CAPTION, TARGET = "a red circle", "a blue circle"


def embedded(device: str) -> tuple:
    """Pipeline, CLIP and tiny autoencoder of the rendered world."""
    return load_diffusion(device=device), load_clip(device=device), load_tiny_autoencoder(device=device)


def shaped(device: str) -> tuple:
    """The same in the shapes of Stable Diffusion 1.4, with random weights."""
    torch.manual_seed(0)
    return tuple(part.to(device) for part in models_of_shape(device))


def published(models: tuple, steps: int, device: str) -> Iterator[Callable[[], None]]:
    """What the pattern does for each step, and before them all its loop over the source."""
    pipeline, encoder, _ = models
    denoiser, source = Denoiser(pipeline), drawn(pipeline, steps)
    texts = [encoder.encode_text([text])[:, 0].to(device) for text in (CAPTION, TARGET)]
    words = [denoiser.read([text]) for text in ("", CAPTION, TARGET)]
    schedule = schedule_of(pipeline.scheduler, steps)
    run = PublishedPattern(denoiser, encoder, schedule, source.latents, words, texts)
    for index in range(steps):
        yield lambda index=index: run.source_pass(index)
    for _ in range(steps):
        yield run.step


def ours(models: tuple, steps: int, *, tiny: bool = False, **settings) -> Iterator[Callable[[], None]]:
    """Our steps; each takes the source's with it."""
    pipeline, encoder, decoder = models
    run = OIGEdit(
        pipeline,
        encoder,
        drawn(pipeline, steps),
        [TARGET],
        config=OIGConfig(**{**PLAIN, **settings}),
        decoder=decoder if tiny else None,
    )
    for _ in range(steps):
        yield run.step


def drawn(pipeline, steps: int):
    return draw_source(pipeline, [CAPTION], steps=steps, generator=torch.Generator().manual_seed(0))


def variants(models: tuple, steps: int, device: str) -> dict[str, Callable[[], Iterator]]:
    """What is measured, as far as it begins."""
    return {
        PUBLISHED: lambda: published(models, steps, device),
        "exact": lambda: ours(models, steps),
        "exact, tiny decoder": lambda: ours(models, steps, tiny=True),
        "exact, checkpointing": lambda: ours(models, steps, checkpointing=True),
        "released": lambda: ours(models, steps, gradient="released"),
    }


def freeze(models: tuple) -> None:
    """Undo what the pattern does to the models: its weights ask for gradients."""
    pipeline, encoder, tiny = models
    for module in (pipeline.unet, pipeline.vae, tiny, encoder):
        module.requires_grad_(False)


def timed(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - clock


def measure_time(models: tuple, steps: int, device: str) -> dict[str, float]:
    """Milliseconds a step; every variant warms up with the first, which does not count."""
    runs = {name: begin() for name, begin in variants(models, steps, device).items()}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    first = [timed(next(runs[PUBLISHED]), device) for _ in range(steps)]
    for _ in range(steps):
        for name, run in runs.items():
            # the pattern's weights ask for gradients in its own turns alone
            for module in (models[0].unet, models[0].vae, models[1]):
                module.requires_grad_(name == PUBLISHED)
            spent[name].append(timed(next(run), device))
    freeze(models)
    milliseconds = {name: 1e3 * statistics.median(values[1:]) for name, values in spent.items()}
    milliseconds[PUBLISHED] += 1e3 * statistics.median(first[1:])
    return milliseconds


def measure_memory(begin: Callable[[], Iterator], models: tuple, device: str) -> float:
    """MiB at the peak of a whole edit."""
    weights = [t for m in _modules(models) for t in (*m.parameters(), *m.buffers())]
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        for step in begin():
            step()
        return (torch.cuda.max_memory_allocated() - base) / MIB
    with Memory(weights) as memory:
        for step in begin():
            step()
    return (memory.peak - memory.held) / MIB


def _modules(models: tuple) -> list[nn.Module]:
    pipeline, encoder, tiny = models
    return [pipeline.unet, pipeline.vae, pipeline.text_encoder, tiny, encoder]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", choices=("embedded", "sd14"), default="embedded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = (embedded if args.shapes == "embedded" else shaped)(args.device)
    spent = measure_time(models, args.steps, args.device)
    rows = {}
    for name, begin in variants(models, args.steps, args.device).items():
        rows[name] = {"ms": spent[name], "mib": measure_memory(begin, models, args.device)}
        freeze(models)
    where = torch.cuda.get_device_name() if args.device == "cuda" else machine()["processor"]
    called = "Embedded model, 64" if args.shapes == "embedded" else "Shapes of Stable Diffusion 1.4, 512"
    what = f"{called} pixels, one edit, {args.steps} steps, float32, one thread, {where}"
    publish(args.out, what, rows, COLUMNS, PUBLISHED)


if __name__ == "__main__":
    main()
