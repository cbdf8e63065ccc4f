"""What a step of an adaptation costs, ours beside the original's pattern of work, in one run.

    python -m benchmarks.cost.adapt --out benchmarks/results/adaptation-cost.json
    python -m benchmarks.cost.adapt --real --out benchmarks/results/adaptation-cost-real.json

Both minimise the directional loss, from the generator as it is, with the layers, the batch of two, the rates
and the schedule of StyleGAN-NADA. The first command runs the embedded models:

  seconds   of processor time a step on one thread, steps taken in turns, so that a busy machine disturbs all
  encodes   pictures that a CLIP encodes a step
  memory    peak of what is allocated in a step, and what is held between steps (weights, their copies,
            gradients, the optimiser's state, the pool), in MiB, counted tensor by tensor
  flops     of a step, by torch's counter
  loss      directional, on latents that neither visited, after the last step, over several seeds

The second counts flops and memory at real sizes on meta tensors: StyleGAN2 of 1024 pixels, ViT-B/32 and
ViT-B/16. What preparation costs once a run, for each latent of the pool, stands beside it.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geokernels.losses import directional_loss
from geokernels.models import Generator, GeneratorConfig, load_clip, load_generator
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines import Adaptation, AdaptationConfig
from geokernels.pipelines.adapt.nada import LEARNING_RATES

from ..harness.machine import machine
from .counting import MIB, CountingEncoder, Encodes, Memory
from .published.nada import OriginalPattern
from .table import LOSS, Column, publish

TEXTS = ("an object", "a large object")
PATTERN = "original's pattern"
COLUMNS = (
    Column("pictures encoded a step", "encodes", ".1f", compared=False),
    Column("Tflop a step", "flops", ".4g", 1e-12),
    Column("peak MiB", "peak_mib", ".0f"),
    Column("held MiB", "held_mib", ".0f"),
    Column("s a step", "seconds", ".3f"),
    LOSS,
    Column("Tflop a latent of the pool, once", "prepare_flops", ".3g", 1e-12, compared=False),
)
PUBLISHED = AdaptationConfig(recipe="published", chunk=2)
# what both are measured with on the embedded models: the published loss, layers and batch, and our savings
POOLED = AdaptationConfig(
    recipe="world",
    loss="directional",
    reach_weight=0.0,
    train="layers",
    guess=2.0,
    batch=2,
    choose_every=1,
    chunk=2,
    pool=64,
)
FEW = 4  # latents suffice where only one is counted


def ours(model: Generator, encoders: list[ClipEncoder], config: AdaptationConfig, seed: int) -> Adaptation:
    chance = torch.Generator().manual_seed(seed)
    run = Adaptation(model, encoders, *TEXTS, config=config, generator=chance)
    run.prepare()
    return run


def original(model: Generator, encoders: list[ClipEncoder], steps: int, seed: int) -> OriginalPattern:
    return OriginalPattern(
        model,
        encoders,
        *TEXTS,
        steps=steps,
        rate=LEARNING_RATES["layers"],
        batch=POOLED.batch,
        templates=POOLED.templates,
        generator=torch.Generator().manual_seed(seed),
    )


def tensors_of(run: Adaptation | OriginalPattern) -> list[Tensor]:
    """What a run holds between steps."""
    models = [run.model, *run.encoders, *([run.frozen] if isinstance(run, OriginalPattern) else [])]
    held = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    held += [tensor.grad for tensor in held if tensor.grad is not None]
    for state in run.optimizer.state.values():
        held += [value for value in state.values() if isinstance(value, Tensor)]
    if isinstance(run, Adaptation) and run.pool is None:
        held += [tensor for tensor in (*run.frozen.parameters(), *run.frozen.buffers())]
    elif isinstance(run, Adaptation):
        held += [run.pool.w, *run.pool.source, *run.pool.previous]
    return held


def count(run: Adaptation | OriginalPattern, steps: int) -> dict[str, float]:
    """Flops and encoded pictures of a step, means over some, and the peak of memory over as many more."""
    with FlopCounterMode(display=False) as counter, Encodes() as shown:
        for _ in range(steps):
            run.step()
    with Memory(tensors_of(run)) as memory:
        for _ in range(steps):
            run.step()
    return {
        "flops": counter.get_total_flops() / steps,
        "encodes": shown.count / steps,
        "held_mib": memory.held / MIB,
        "peak_mib": memory.peak / MIB,
    }


@torch.no_grad()
def final_loss(model: Generator, given: Generator, encoder: ClipEncoder) -> float:
    """The directional loss on 64 latents that no run visited."""
    z = torch.randn(64, given.config.style_dim, generator=torch.Generator().manual_seed(2**41))
    w = given.mapping(z)
    before, after = encoder.encode_text(TEXTS, POOLED.templates)
    pairs = [
        directional_loss(
            encoder.encode_image(model.synthesis(part).clamp(0, 1)),
            encoder.encode_image(given.synthesis(part).clamp(0, 1)),
            before,
            after,
        ).item()
        for part in w.split(8)
    ]
    return statistics.fmean(pairs)


def variants(steps: int) -> dict[str, AdaptationConfig | None]:
    """What is measured: None is the original's pattern."""
    every = replace(POOLED, steps=steps)
    return {
        PATTERN: None,
        "ours, layers chosen every step": every,
        "ours, layers chosen every 10 steps": replace(every, choose_every=10),
    }


def real_variants(steps: int) -> dict[str, AdaptationConfig | None]:
    """The same, and what the published recipe runs."""
    pattern, *pooled = variants(steps).items()
    published = replace(PUBLISHED, steps=steps)
    return dict(
        [
            pattern,
            ("ours, as published", published),
            ("ours, as published, a picture at a time", replace(published, chunk=1)),
            *pooled,
        ]
    )


def measure_embedded(steps: int, seeds: int) -> dict[str, dict]:
    """Every figure, on the embedded models; the variants' steps are taken in turns."""
    torch.set_num_threads(1)
    given, encoder = load_generator(), CountingEncoder.of(load_clip())
    rows = {name: {"final": [], "seconds": []} for name in variants(steps)}
    for seed in range(seeds):
        runs = {
            name: ours(given, [encoder], config, seed) if config else original(given, [encoder], steps, seed)
            for name, config in variants(steps).items()
        }
        for _ in range(steps):
            for name, run in runs.items():
                clock = time.process_time()
                run.step()
                rows[name]["seconds"].append(time.process_time() - clock)
        for name, run in runs.items():
            rows[name]["final"].append(final_loss(run.model, given, encoder))
    for name, config in variants(steps).items():
        run = ours(given, [encoder], config, 0) if config else original(given, [encoder], steps, 0)
        rows[name] |= count(run, min(10, steps // 2))
    for row in rows.values():
        row["loss"], row["spread"] = statistics.fmean(row["final"]), statistics.pstdev(row["final"])
        row["seconds"] = statistics.fmean(row["seconds"])
    return rows


def measure_real(size: int, names: Sequence[str]) -> dict[str, dict]:
    """Flops and memory at real sizes, on tensors without values."""
    import open_clip

    with torch.device("meta"):
        given = Generator(GeneratorConfig.standard(size)).eval()
        models = {name: open_clip.create_model(name, device="meta", load_weights=False) for name in names}
        encoders = [CountingEncoder(n, model, open_clip.get_tokenizer(n)) for n, model in models.items()]
    rows = {}
    for name, config in real_variants(100).items():
        span = config.choose_every if config else 1
        if config and config.pool:
            config = replace(config, pool=FEW)
        if config:
            run = Adaptation(given, encoders, *TEXTS, config=config, generator=torch.Generator())
        else:
            run = original(given, encoders, 100, 0)
        with FlopCounterMode(display=False) as counter:
            if config:
                run.prepare()
        rows[name] = {**count(run, span), "prepare_flops": counter.get_total_flops() / FEW}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", action="store_true", help="real sizes, on tensors without values")
    parser.add_argument("--size", type=int, default=1024, help="of the real generator's pictures")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.real:
        names = ("ViT-B-32", "ViT-B-16")
        what = f"StyleGAN2 of {args.size} pixels, {' and '.join(names)}, batch of two, float32, not run"
        rows = measure_real(args.size, names)
    else:
        what = (
            f"Embedded generator and CLIP, batch of two, {args.steps} steps, {args.seeds} seeds, one thread, "
            f"{machine()['processor']}"
        )
        rows = measure_embedded(args.steps, args.seeds)
    publish(args.out, what, rows, COLUMNS, PATTERN)


if __name__ == "__main__":
    main()
