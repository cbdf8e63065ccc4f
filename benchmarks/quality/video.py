"""Is a clip's edit seen in every frame, does the rest stay, and is it steadier than editing frame by frame?

    python -m benchmarks.quality.video --clips 7 --beside 2 --out benchmarks/results/video-edit.json

Clips of the rendered world, 24 frames of 64 pixels, an object moving over a moving ground; nothing is given
but the frames and two captions: flow is DIS's, masks are found from motion. One atlas a clip is fitted with
the default recipe and edited twice, without fitting again: another colour of the object, another background.
On the first ``--beside`` clips the colour is edited frame by frame besides, by the recipe for pictures.

  atlas     PSNR in dB of the frames as the atlas has them, over the clip, and of the worst frame
  asked     share of frames in which the judge names the asked value
  kept      share of the other four attributes that it names as they were, over all frames
  psnr      in dB, against the source, over the pixels that were not to change: where the object is not
            at all or, when the background was asked, where nothing else is; mean and worst frame
  warping   mean absolute difference along the true motion, visible pixels, of 255; beside it the clip's own
  seconds   of processor time on one thread

Results are kept clip by clip: the same command goes on where it was stopped. Seeds from 1000 on; those below
were used to choose the recipe.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from geokernels import world
from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.media.pictures import grid, write_picture
from geokernels.metrics import outside_psnr, warping_error, wilson_interval
from geokernels.models import load_clip, load_flow
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines import VideoEditConfig, edit_layer, edit_video, fit_atlas, prepare_footage

from ..harness.machine import machine

FRAMES, SIZE = 24, 64
LAYERS = {"colour": "foreground", "background": "background"}
SHOWN = 8  # frames of a sheet


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def psnr(frames: Tensor, source: Tensor) -> float:
    return -10 * (frames - source).square().mean().log10().item()


def score(frames: Tensor, clip: world.Clip, wanted: dict[str, str], attribute: str) -> dict[str, float]:
    """What the judge and the pixels say of an edit."""
    named = world.judge(frames).names()
    changed = clip.masks if attribute == "colour" else 1 - clip.masks
    kept = [outside_psnr(*pair) for pair in zip(frames, clip.frames, changed)]
    others = [verdict[a] == wanted[a] for verdict in named for a in wanted if a != attribute]
    return {
        "asked": statistics.fmean(verdict[attribute] == wanted[attribute] for verdict in named),
        "kept": statistics.fmean(others),
        "psnr": psnr_of(kept),
        "worst": psnr_of([min(kept)]),
        "warping": 255 * warping_error(frames, clip.flow, clip.visible),
    }


def psnr_of(each: list[float]) -> float:
    """The PSNR of frames together, from that of each; at most 100."""
    return -10 * math.log10(max(1e-10, statistics.fmean(10 ** (-db / 10) for db in each)))


def draw_clip(seed: int) -> world.Clip:
    """The clip of a seed."""
    scene = world.sample_scenes(1, generator=chance(seed))
    return world.render_clip(scene, FRAMES, SIZE, generator=chance(seed))


def draw_edit(clip: world.Clip, seed: int, attribute: str) -> tuple[tuple[str, str], dict[str, str]]:
    """What the clip of a seed shows and shall show, and the attributes that then are right."""
    goal = world.edit(clip.scenes[0], attribute, generator=chance(seed + 1))
    return (clip.caption, world.caption(goal)[0]), goal.names()[0]


def run_clip(seed: int, encoder: ClipEncoder, sheets: Path | None) -> dict:
    """Everything about one clip but what frame-by-frame editing makes of it."""
    clip = draw_clip(seed)
    clock = time.process_time()
    footage = prepare_footage(clip.frames, load_flow())
    prepared = time.process_time()
    atlas = fit_atlas(footage, generator=chance(seed)).atlas
    fitted = time.process_time()
    seen = torch.stack([atlas.frame(t) for t in range(FRAMES)])
    result: dict = {
        "seed": seed,
        "clip": clip.caption,
        "atlas": {"psnr": psnr(seen, clip.frames), "worst": min(map(psnr, seen, clip.frames))},
        "warping": 255 * warping_error(clip.frames, clip.flow, clip.visible),
        "seconds": {"footage": prepared - clock, "atlas": fitted - prepared},
        "edits": {},
    }
    shown = [clip.frames, seen]
    for attribute, layer in LAYERS.items():
        texts, wanted = draw_edit(clip, seed, attribute)
        clock = time.process_time()
        edit = edit_video(
            footage,
            atlas,
            [encoder],
            *texts,
            config=VideoEditConfig(recipe="world", layer=layer),
            generator=chance(seed),
        )
        frames = torch.stack(list(edit.frames))
        row = {"to": texts[1], **score(frames, clip, wanted, attribute)}
        result["edits"][attribute] = {**row, "seconds": time.process_time() - clock}
        shown.append(frames)
    if sheets is not None:
        picked = [part[:: FRAMES // SHOWN] for part in shown]
        write_picture(sheets / f"{seed}.png", grid(list(torch.cat(picked)), columns=SHOWN))
    return result


def run_beside(seed: int, encoder: ClipEncoder) -> dict:
    """The colour of one clip, edited frame by frame."""
    clip = draw_clip(seed)
    texts, wanted = draw_edit(clip, seed, "colour")
    clock = time.process_time()
    each = [edit_layer(f, [encoder], *texts, generator=chance(seed)).composite for f in clip.frames]
    row = {"to": texts[1], **score(torch.stack(each), clip, wanted, "colour")}
    return {**row, "seconds": time.process_time() - clock}


def as_markdown(summary: dict) -> str:
    """One row an edit, and what they come to."""
    clips = summary["clips"]
    head = (
        "clip",
        "atlas dB (worst)",
        "edit",
        "asked",
        "kept",
        "untouched dB (worst)",
        "warping (clip's own)",
    )
    lines = [summary["what"], "", f"| {' | '.join((*head, 's'))} |", "|---" * (len(head) + 1) + "|"]
    for clip in clips:
        rows = {**clip["edits"], "colour, frame by frame": clip.get("frame by frame")}
        for name, row in rows.items():
            if row is None:
                continue
            cells = [
                f"{clip['seed']}: {clip['clip']}",
                f"{clip['atlas']['psnr']:.1f} ({clip['atlas']['worst']:.1f})",
                name,
                f"{row['asked']:.0%}",
                f"{row['kept']:.0%}",
                f"{row['psnr']:.1f} ({row['worst']:.1f})",
                f"{row['warping']:.2f} ({clip['warping']:.2f})",
                f"{row['seconds']:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _sums(clips)]
    return "\n".join(lines) + "\n"


def _sums(clips: list[dict]) -> str:
    atlas = [clip["seconds"]["atlas"] for clip in clips]
    text = [f"Fitting an atlas took {min(atlas):.0f} to {max(atlas):.0f} s."]
    for name in LAYERS:
        shares = [clip["edits"][name]["asked"] for clip in clips]
        hits, good = sum(round(share * FRAMES) for share in shares), sum(share >= 0.9 for share in shares)
        share = wilson_interval(good, len(clips))
        text.append(
            f"{name.capitalize()}: the asked value in {hits} of {FRAMES * len(clips)} frames; in at least "
            f"90% of the frames of {good} of {len(clips)} clips ({share})."
        )
    both = [clip for clip in clips if "frame by frame" in clip]
    if both:
        atlas, each, own = (
            statistics.fmean(row["warping"] for row in rows)
            for rows in ([c["edits"]["colour"] for c in both], [c["frame by frame"] for c in both], both)
        )
        text.append(
            f"Warping of the colour's edit over {len(both)} clips: {atlas:.2f} by the atlas, "
            f"{each:.2f} frame by frame, {own:.2f} in the clips themselves."
        )
    return " ".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=7)
    parser.add_argument("--beside", type=int, default=1, help="clips that are edited frame by frame as well")
    parser.add_argument("--seed", type=int, default=1000, help="of the first clip")
    parser.add_argument("--sheets", type=Path, help="folder for pictures: source, atlas, edits, row by row")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = json.loads(args.out.read_text())["clips"] if args.out.exists() else []
    encoder = load_clip()
    for index, seed in enumerate(range(args.seed, args.seed + args.clips)):
        if index == len(done):
            done.append(run_clip(seed, encoder, args.sheets))
            write(args.out, done)
    for clip in done[: args.beside]:
        if "frame by frame" not in clip:
            clip["frame by frame"] = run_beside(clip["seed"], encoder)
            write(args.out, done)
    print(as_markdown(json.loads(args.out.read_text())))


def write(out: Path, clips: list[dict]) -> None:
    """Results, as far as they are."""
    what = f"Rendered world, clips of {FRAMES} frames of {SIZE} pixels, one thread, {machine()['processor']}"
    summary = {"what": what, "clips": clips, "machine": machine(), "versions": versions()}
    write_json(out, summary)


if __name__ == "__main__":
    main()
