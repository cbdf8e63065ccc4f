"""What a step of a layered edit costs, ours beside the original's pattern of work, in one run.

    python -m benchmarks.cost.morph --out benchmarks/results/layer-edit-cost.json
    python -m benchmarks.cost.morph --real --out benchmarks/results/layer-edit-cost-real.json

All minimise the same losses, the directional one among them, from nothing, by the same network, with 16
views but for the last, which has as few as the default recipe. The first command edits scenes of the
rendered world with the embedded CLIP:

  seconds   of processor time a step on one thread, steps taken in turns, so that a busy machine disturbs all;
            the source's encodes are among ours, at every crop's first turn
  encodes   pictures that the CLIP encodes a step; ours once the source is known
  memory    peak of what is allocated in a step beyond the weights, in MiB, counted tensor by tensor
  flops     of a step, by torch's counter
  loss      the weighted sum of all losses after the last step, on 64 views that neither saw, shared by
            source, composite and screen; mean and standard deviation over the scenes

The second counts flops and memory of the published recipe at real sizes, on tensors without values: a crop of
512 by 512 pixels, ViT-B/32. The whole picture, which is learned from beside the crop at every 75th step, is
left out.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geokernels import world
from geokernels.losses import lay_over, sparsity_loss
from geokernels.models.clip import ClipEncoder, load_clip
from geokernels.pipelines import LayerEdit, LayerEditConfig
from geokernels.pipelines.morph.edit_network import as_layer
from geokernels.pipelines.morph.internal_dataset import Crop, InternalDataset
from geokernels.pipelines.morph.layer_guidance import LayerGuidance, screen_text

from ..harness.machine import machine
from ..quality.edits import draw
from .counting import MIB, CountingEncoder, Encodes, Memory
from .published.text2live import OriginalPattern, ReleasedPattern
from .table import LOSS, Column, publish

PATTERN = "original's pattern"
COLUMNS = (
    Column("pictures encoded a step", "encodes", ".0f"),
    Column("Gflop a step", "flops", ".4g", 1e-9),
    Column("peak MiB", "peak_mib", ".0f"),
    Column("s a step", "seconds", ".3f"),
    LOSS,
)
SHARED = LayerEditConfig(recipe="world", loss="directional", guess=2.0, views=16, screen_views=16)
# crops of one size, so that steps cost the same
RELEASED = LayerEditConfig(recipe="published", zoom=(1.0, 1.0), crop=(1.0, 1.0))
COUNTED = 2  # steps, after a first that fills what is kept
HELD_OUT = 64

Run = LayerEdit | OriginalPattern | ReleasedPattern


def variants(shared: LayerEditConfig = SHARED, **changes) -> dict[str, LayerEditConfig]:
    """What is measured."""
    shared = replace(shared, **changes)
    return {
        PATTERN: shared,
        "ours, all views of the screen": shared,
        "ours, 4 views of the screen": replace(shared, screen_views=4),
        "ours, 8 views, 2 of the screen": replace(shared, views=8, screen_views=2),  # the default
    }


def begin(name: str, picture: Tensor, encoder: ClipEncoder, texts: tuple[str, str, str], config, seed: int):
    """A run of a variant, at its first step."""
    how = {"config": config, "generator": torch.Generator().manual_seed(seed), "screen": texts[2]}
    if name == PATTERN:
        pattern = ReleasedPattern if config.network == "skip" else OriginalPattern
        return pattern(picture, encoder, *texts[:2], **how)
    return LayerEdit(picture, [encoder], *texts[:2], **how)


def count(run: Run, encoder: ClipEncoder) -> dict[str, float]:
    """Encodes, flops and memory of a step whose crop has come before."""
    run.step()
    with Encodes() as shown, FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            run.step()
    held = [*run.network.parameters(), *encoder.parameters(), *encoder.buffers()]
    with Memory(held) as memory:
        for _ in range(COUNTED):
            run.step()
    return {
        "encodes": shown.count / COUNTED,
        "flops": counter.get_total_flops() / COUNTED,
        "peak_mib": (memory.peak - memory.held) / MIB,
    }


@torch.no_grad()
def held_out_loss(
    config: LayerEditConfig,
    encoder: ClipEncoder,
    texts: tuple[str, str, str],
    source: Tensor,
    composite: Tensor,
    layer: Tensor,
    *,
    turn: int = 0,
) -> float:
    """The weighted sum of every loss of an edit, under views that no run saw.

    Args:
        config: Of the edit; its weights count, and how many its views are.
        encoder: What guided.
        texts: What the source shows, what it shall show, and what the edit alone shows over green.
        source: The whole picture, ``(1, 3, H, W)``.
        composite: The same with the edit.
        layer: The edit alone, colour and opacity, ``(1, 4, H, W)``.
        turn: Number of the views to use.
    """
    judge = LayerGuidance([encoder], *texts[:2], config, screen=texts[2], key=2**41 + turn)
    whole = Crop(0, 0, *source.shape[-2:], False)
    sample = InternalDataset(source, judge, [whole]).sample(0)
    terms = judge.terms_of_composite(composite, sample) | judge.screen_terms(layer, sample)
    terms["sparsity"] = sparsity_loss(layer[:, 3:])
    return sum(config.weight(name) * term.item() for name, term in terms.items())


@torch.no_grad()
def final_loss(run: Run, encoder: ClipEncoder, texts: tuple[str, str, str]) -> float:
    """The loss of the whole picture as a run leaves it."""
    config = replace(run.config, views=HELD_OUT, screen_views=HELD_OUT)
    layer = as_layer(run.network(run.source))
    composite = lay_over(layer[:, :3], layer[:, 3:], run.source)
    return held_out_loss(config, encoder, texts, run.source, composite, layer)


def measure_embedded(steps: int, scenes: int) -> dict[str, dict]:
    """Every figure, on the rendered world."""
    torch.set_num_threads(1)
    encoder = CountingEncoder.of(load_clip())
    rows = {name: {"seconds": [], "final": []} for name in variants()}
    for index in range(scenes):
        scene, target = draw(2, index, "colour")
        picture, pair = world.render(scene)[0], (world.caption(scene)[0], world.caption(target)[0])
        texts = (*pair, screen_text([encoder], *pair))
        given = picture, encoder, texts
        runs = {name: begin(name, *given, config, index) for name, config in variants(steps=steps).items()}
        for _ in range(steps):
            for name, run in runs.items():
                clock = time.process_time()
                run.step()
                rows[name]["seconds"].append(time.process_time() - clock)
        for name, run in runs.items():
            rows[name]["final"].append(final_loss(run, encoder, texts))
    for name, config in variants(crops=1).items():
        row = rows[name]
        row |= count(begin(name, picture, encoder, texts, config, 0), encoder)
        row["seconds"] = statistics.fmean(row["seconds"])
        row["loss"], row["spread"] = statistics.fmean(row["final"]), statistics.pstdev(row["final"])
    return rows


def measure_real(size: int, name: str) -> dict[str, dict]:
    """Encodes, flops and memory of the published recipe at a real size, on tensors without values."""
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta", load_weights=False)
        encoder = CountingEncoder(name, model, open_clip.get_tokenizer(name))
        picture = torch.empty(3, size, size)
    texts = ("a cake", "a cake with icing", "icing")
    return {
        variant: count(begin(variant, picture, encoder, texts, config, 0), encoder)
        for variant, config in variants(RELEASED, short_side=size).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", action="store_true", help="a real size, on tensors without values")
    parser.add_argument("--size", type=int, default=512, help="of the picture, with --real")
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with --real")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.real:
        crop = f"a crop of {args.size} x {args.size} pixels"
        what = f"Published recipe, {crop}, {args.model}, 16 views, float32, counted on tensors without values"
        rows = measure_real(args.size, args.model)
    else:
        processor = machine()["processor"]
        what = f"Rendered world, 16 views, {args.steps} steps, {args.scenes} scenes, one thread, {processor}"
        rows = measure_embedded(args.steps, args.scenes)
    publish(args.out, what, rows, COLUMNS, PATTERN)


if __name__ == "__main__":
    main()
