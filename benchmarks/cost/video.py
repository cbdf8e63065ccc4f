"""What an edit of a clip costs once its atlas is there, ours beside the original's pattern of work.

    python -m benchmarks.cost.video --out benchmarks/results/video-cost.json
    python -m benchmarks.cost.video --real --out benchmarks/results/video-cost-real.json

Both minimise the same losses, the directional one among them, from nothing, by the same network on the same
atlas, with 16 views; ours looks at the screen under 4 of them, or takes the default's 8 and 2, and has 16
windows. The first command edits clips of 64 pixels with the embedded CLIP. What a step costs does not depend
on values, and is measured on an atlas that is not fitted:

  seconds   of processor time a step on one thread, steps taken in turns, after one turn of the windows
  encodes   pictures that the CLIP encodes a step, once the source is known
  flops     of such a step, by torch's counter
  memory    peak of what is allocated in the whole run beyond the weights, in MiB, counted tensor by tensor:
            from looking at the clip, over the steps, to the last edited frame; for clips of three lengths

Where edits end is measured on clips of the rendered world, 24 frames whose atlases are fitted by the default
recipe; another colour is asked of the object. On each clip every pattern edits the same atlas in as many
steps, once a seed:

  loss      the weighted sum of all losses after the last step, mean over all frames, each under 8 views that
            no run saw; mean and standard deviation over clips and seeds
  beyond    that loss less the pattern's of the same clip and seed; mean and standard deviation
  noise     standard deviation between seeds on one clip, over the clips (root of the mean variance)

The second counts at 768 x 432 pixels with ViT-B/32, on tensors without values: the patterns; a step of an
edit by the published recipe, whose windows are whole frames here and whose views of frames, which it keeps on
the host, are counted apart; and a step of the published fit of an atlas, with and without global rigidity.
Steps of the fit are also timed, on one thread of the CPU.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.models import load_flow
from geokernels.models.atlas import LayeredAtlas
from geokernels.models.clip import ClipEncoder, load_clip
from geokernels.pipelines import (
    AtlasFit,
    AtlasFitConfig,
    Footage,
    VideoEdit,
    VideoEditConfig,
    fit_atlas,
    prepare_footage,
)
from geokernels.pipelines.morph.edit_network import as_layer
from geokernels.pipelines.morph.layer_guidance import screen_text
from geokernels.pipelines.video.atlas_view import AtlasPicture, atlas_picture, view_frame

from ..harness.machine import machine
from ..quality.video import draw_clip, draw_edit
from .counting import MIB, CountingEncoder, Encodes, Memory
from .morph import held_out_loss
from .published.text2live_video import OriginalVideoPattern

PATTERN = "original's pattern"
VIEWS = {PATTERN: (16, 16), "ours, 4 views of the screen": (16, 4), "ours, 8 views, 2 of the screen": (8, 2)}
TEXTS = ("a red object", "a blue object", "a blue object on a green background")
LENGTHS = (8, 24, 70)
COUNTED = 2
HELD_OUT = 8  # views a frame

Run = VideoEdit | OriginalVideoPattern


class Clip(NamedTuple):
    """A clip, its atlas, the foreground's as a picture, and texts: from, to, and of the edit over green."""

    footage: Footage
    atlas: LayeredAtlas
    source: Tensor  # (1, 3, h, w)
    texts: tuple[str, str, str]


def noise_clip(frames: int, size: tuple[int, int], device: str) -> Clip:
    """A clip of noise and an atlas that is not fitted; ``device="meta"`` for one without values."""
    chance = np.random.default_rng(0)
    # one frame again and again: nothing is counted in how many arrays there are
    pixel = chance.integers(0, 255, (1, *size, 3), dtype=np.uint8)
    pixels = np.broadcast_to(pixel, (frames, *size, 3))
    motion = torch.eye(2, 3).expand(2, frames, 2, 3)
    empty = np.zeros((0,))
    networks = AtlasFitConfig.of_size(size).shape
    atlas = LayeredAtlas(motion, size, networks, generator=torch.Generator().manual_seed(0))
    footage = Footage(pixels, *[empty] * 5, motion, "")
    return Clip(footage, atlas.to(device).requires_grad_(False), torch.rand(1, 3, *size).to(device), TEXTS)


def rendered_clip(seed: int, encoder: ClipEncoder, fit: AtlasFitConfig | None = None) -> Clip:
    """A clip of the rendered world and its fitted atlas; another colour is asked of its object."""
    truth = draw_clip(seed)
    texts, _ = draw_edit(truth, seed, "colour")
    footage = prepare_footage(truth.frames, load_flow())
    atlas = fit_atlas(footage, config=fit, generator=torch.Generator().manual_seed(seed)).atlas
    source = atlas_picture(atlas.requires_grad_(False), 0, max(footage.size)).rgb
    return Clip(footage, atlas, source, (*texts, screen_text([encoder], *texts)))


def config(name: str, size: tuple[int, int], steps: int = 1000) -> VideoEditConfig:
    """How a pattern edits frames of a size."""
    views, screen_views = VIEWS[name]
    return VideoEditConfig(
        recipe="world",
        loss="directional",
        guess=2.0,
        views=views,
        screen_views=screen_views,
        crops=16,
        working_size=max(size),
        steps=steps,
    )


def begin(name: str, clip: Clip, encoder: ClipEncoder, *, seed: int = 0, **how) -> Run:
    """A run at its first step; the atlas's picture is given to both."""
    chance, settings = torch.Generator().manual_seed(seed), config(name, clip.footage.size, **how)
    if name == PATTERN:
        return OriginalVideoPattern(*clip[:3], encoder, clip.texts, config=settings, generator=chance)
    picture = AtlasPicture(clip.source, torch.ones_like(clip.source[:, :1]))
    how = {"screen": clip.texts[2], "config": settings, "picture": picture, "generator": chance}
    return VideoEdit(*clip[:2], [encoder], *clip.texts[:2], **how)


@torch.no_grad()
def write_all(run: Run) -> None:
    """Make every edited frame, as each pattern does before it writes."""
    if isinstance(run, OriginalVideoPattern):
        run.frames()
        return
    layer = run.painted()
    for index in range(len(run.footage)):  # as VideoEdit.frame does, on whatever device
        view = view_frame(run.atlas, run.layer, index, run.footage.frame(index))
        view.composite(view.shown(layer))


def peak_mib(name: str, clip: Clip, encoder: ClipEncoder) -> float:
    """Peak of a whole run, with as many steps as there are windows."""
    held = [*encoder.parameters(), *encoder.buffers(), *clip.atlas.parameters(), *clip.atlas.buffers()]
    with Memory([*held, clip.source]) as memory:
        run = begin(name, clip, encoder)
        for _ in range(config(name, clip.footage.size).crops + 1):
            run.step()
        write_all(run)
    return (memory.peak - memory.held) / MIB


def count(run: Run, name: str, size: tuple[int, int]) -> dict[str, float]:
    """Encodes and flops of a step whose window has come before."""
    for _ in range(1 if name == PATTERN else config(name, size).crops):
        run.step()
    with Encodes() as shown, FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            run.step()
    return {"encodes": shown.count / COUNTED, "flops": counter.get_total_flops() / COUNTED}


def measure(size: tuple[int, int], encoder: ClipEncoder, device: str, steps: int) -> dict[str, dict]:
    """Every figure; ``steps`` timed ones, none on tensors without values."""
    rows: dict[str, dict] = {}
    clip = noise_clip(LENGTHS[1], size, device)
    runs = {name: begin(name, clip, encoder) for name in VIEWS}
    for name, run in runs.items():
        rows[name] = count(run, name, size)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(steps):
        for name, run in runs.items():
            clock = time.process_time()
            run.step()
            times[name].append(time.process_time() - clock)
    for name in rows:
        if steps:
            rows[name]["seconds"] = statistics.fmean(times[name])
        rows[name]["peak_mib"] = {
            str(T): peak_mib(name, noise_clip(T, size, device), encoder) for T in LENGTHS
        }
    return rows


@torch.no_grad()
def final_loss(run: Run, clip: Clip, encoder: ClipEncoder) -> float:
    """The loss of all frames as a run leaves them, by a sum that does not know the patterns apart."""
    settings = replace(run.config, views=HELD_OUT, screen_views=HELD_OUT)
    layer, losses = as_layer(run.network(clip.source)), []
    for index in range(len(clip.footage)):
        view = view_frame(clip.atlas, 0, index, clip.footage.frame(index))
        shown = view.shown(layer)
        given = view.frame, view.composite(shown), shown
        losses.append(held_out_loss(settings, encoder, clip.texts, *given, turn=index))
    return statistics.fmean(losses)


def measure_losses(clip: Clip, encoder: ClipEncoder, steps: int, seeds: int) -> dict[str, list[float]]:
    """Where every pattern ends on one clip, seed by seed."""
    losses: dict[str, list[float]] = {name: [] for name in VIEWS}
    for seed in range(seeds):
        for name, ends in losses.items():
            run = begin(name, clip, encoder, seed=seed, steps=steps)
            for _ in range(steps):
                run.step()
            ends.append(final_loss(run, clip, encoder))
    return losses


def compare_losses(clips: list[dict[str, list[float]]]) -> dict[str, dict]:
    """What :func:`measure_losses` found on several clips comes to, by pattern."""
    first = torch.tensor([clip[PATTERN] for clip in clips], dtype=torch.float64)  # (clips, seeds)
    rows = {}
    for name in clips[0]:
        each = torch.tensor([clip[name] for clip in clips], dtype=torch.float64)
        beyond = each - first
        rows[name] = {
            "final": each.tolist(),
            "loss": each.mean().item(),
            "spread": each.std(correction=0).item(),
            "beyond": beyond.mean().item(),
            "beyond_spread": beyond.std(correction=0).item(),
            "noise": each.var(1).mean().sqrt().item(),
        }
    return rows


def count_published(size: tuple[int, int], encoder: ClipEncoder, device: str) -> dict:
    """An edit by the published recipe, its windows whole frames; ``peak_mib`` is without the kept views."""
    short, row = min(size), {"peak_mib": {}, "host_mib": {}}
    settings = VideoEditConfig(recipe="published", whole_every=None, crop=(1.0, 1.0), short_side=short)
    for T in LENGTHS:
        clip = noise_clip(T, size, device)
        held = [*encoder.parameters(), *encoder.buffers(), *clip.atlas.parameters(), *clip.atlas.buffers()]
        picture = AtlasPicture(clip.source, torch.ones_like(clip.source[:, :1]))
        how = {"screen": clip.texts[2], "config": settings, "picture": picture}
        with Memory([*held, clip.source]) as memory:
            run = VideoEdit(*clip[:2], [encoder], *clip.texts[:2], **how, generator=torch.Generator())
            for index in range(T):
                run.dataset.whole_frame(index)
            for _ in range(2):
                run.step()
            write_all(run)
        kept = sum(x.numel() * x.element_size() for view in run.dataset.kept.values() for x in view) / MIB
        row["host_mib"][str(T)] = kept
        row["peak_mib"][str(T)] = (memory.peak - memory.held) / MIB - kept
    with Encodes() as shown, FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            run.step()
    return {"encodes": shown.count / COUNTED, "flops": counter.get_total_flops() / COUNTED, **row}


def begin_fit(size: tuple[int, int], device: str, **changes) -> AtlasFit:
    """A fit by the published recipe to a clip of noise that stands still."""
    clip, T = noise_clip(LENGTHS[1], size, "cpu"), LENGTHS[1]
    way, sure = (np.broadcast_to(np.zeros((), kind), (T - 1, *size)) for kind in (np.float32, np.bool_))
    ways = np.broadcast_to(way[..., None], (*way.shape, 2))
    masks = np.zeros((T, *size), np.uint8)
    footage = replace(
        clip.footage, masks=masks, flow=ways, trusted=sure, back=ways, back_trusted=sure, checksum="noise"
    )
    settings = AtlasFitConfig(recipe="published", **changes)
    return AtlasFit(footage, config=settings, generator=torch.Generator(), device=device)


def count_fit(size: tuple[int, int]) -> dict:
    """A step of the published fit, on tensors without values: at first, and once global rigidity is over."""
    rows: dict = {}
    for name, changes in (("first", {}), ("later", {"globally_rigid": 0.0})):
        run = begin_fit(size, "meta", **changes)
        run.step()  # Adam's moments are there after it
        held = [*run.atlas.parameters(), *run.atlas.buffers()]
        with Memory(held) as memory, FlopCounterMode(display=False) as counter:
            run.step()
        rows[name] = {"flops": counter.get_total_flops(), "peak_mib": (memory.peak - memory.held) / MIB}
    rows["samples"] = run.config.samples
    return rows


def time_fit(size: tuple[int, int], steps: int) -> list[float]:
    """Processor seconds of steps of the published fit once global rigidity is over, without the first."""
    run, times = begin_fit(size, "cpu", globally_rigid=0.0), []
    for _ in range(1 + steps):
        clock = time.process_time()
        run.step()
        times.append(time.process_time() - clock)
    return times[1:]


def measure_real(size: tuple[int, int], name: str) -> dict[str, dict]:
    """What is counted at a real size."""
    encoder = real_encoder(name)
    rows = measure(size, encoder, "meta", 0)
    return {"patterns": rows, "published": count_published(size, encoder, "meta"), "fit": count_fit(size)}


def real_encoder(name: str) -> CountingEncoder:
    """A CLIP of open_clip without values."""
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta", load_weights=False)
        return CountingEncoder(name, model, open_clip.get_tokenizer(name))


def as_markdown(summary: dict) -> str:
    """One row a pattern, and how many times cheaper than the original's ours is."""
    rows = summary["patterns"]
    first = rows[PATTERN]
    head = ["pattern", "pictures encoded a step", "Gflop a step"]
    head += [f"peak MiB, {T} frames" for T in LENGTHS] + ["s a step"] * ("seconds" in first)
    head += ["final loss", "beyond the pattern's", "noise"] * ("loss" in first)
    lines = [summary["what"], "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]

    def cell(now: float, then: float, form: str) -> str:
        return f"{now:{form}} ({then / now:.2f} x less)"

    for name, row in rows.items():
        cells = [name, cell(row["encodes"], first["encodes"], ".0f")]
        cells.append(cell(row["flops"] / 1e9, first["flops"] / 1e9, ".4g"))
        cells += [cell(row["peak_mib"][str(T)], first["peak_mib"][str(T)], ".0f") for T in LENGTHS]
        if "seconds" in row:
            cells.append(cell(row["seconds"], first["seconds"], ".3f"))
        if "loss" in row:
            cells += [
                f"{row[a]:.3f} ± {row[b]:.3f}" for a, b in (("loss", "spread"), ("beyond", "beyond_spread"))
            ]
            cells.append(f"{row['noise']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    if "published" in summary:
        lines += ["", published_sentence(summary["published"]), "", fit_sentence(summary["fit"])]
    return "\n".join(lines) + "\n"


def published_sentence(row: dict) -> str:
    """What an edit by the published recipe costs."""
    frames = ", ".join(row["peak_mib"])
    peak, kept = (", ".join(f"{x:.0f}" for x in row[name].values()) for name in ("peak_mib", "host_mib"))
    return (
        f"Published recipe, windows of whole frames: {row['encodes']:.0f} pictures encoded and "
        f"{row['flops'] / 1e9:.0f} Gflop a step; for {frames} frames a peak of {peak} MiB, and {kept} MiB of "
        "views kept on the host."
    )


def fit_sentence(rows: dict) -> str:
    """What a step of the published fit costs."""
    first, later, times = rows["first"], rows["later"], rows["seconds"]
    return (
        f"Published fit, {rows['samples']} pixels a step: {later['flops'] / 1e9:.0f} Gflop and a peak of "
        f"{later['peak_mib']:.0f} MiB; {first['flops'] / 1e9:.0f} Gflop and {first['peak_mib']:.0f} MiB "
        f"while rigidity is held globally. On one thread, {rows['cpu']}, a step takes "
        f"{statistics.median(times):.1f} s of processor time (median of {len(times)})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", action="store_true", help="a real size, on tensors without values")
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip, with --real")
    parser.add_argument("--steps", type=int, default=20, help="timed ones")
    parser.add_argument("--edit-steps", type=int, default=40, help="of edits whose loss is compared")
    parser.add_argument("--clips", type=int, default=3, help="of which the loss is compared")
    parser.add_argument("--seeds", type=int, default=3, help="of edits of each of these clips")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, for the noise between them, got {args.seeds}")
    torch.set_num_threads(1)
    if args.real:
        what = f"Clips of 768 x 432 pixels, {args.model}, 16 views unless said, float32, not run"
        found = measure_real((432, 768), args.model)
        found["fit"] |= {"seconds": time_fit((432, 768), args.steps), "cpu": machine()["processor"]}
    else:
        cpu = machine()["processor"]
        what = (
            f"Clips of 64 x 64 pixels, embedded CLIP, 16 views unless said, one thread, {cpu}; final losses "
            f"after {args.edit_steps} steps on {args.clips} clips of 24 frames, {args.seeds} seeds each"
        )
        encoder = CountingEncoder.of(load_clip())
        rows = measure((64, 64), encoder, "cpu", args.steps)
        how = encoder, args.edit_steps, args.seeds
        clips = [measure_losses(rendered_clip(seed, encoder), *how) for seed in range(args.clips)]
        for name, row in compare_losses(clips).items():
            rows[name] |= row
        found = {"patterns": rows}
    summary = {"what": what, **found, "machine": machine(), "versions": versions()}
    write_json(args.out, summary)
    print(as_markdown(summary))


if __name__ == "__main__":
    main()
