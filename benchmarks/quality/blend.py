"""Do the maps of ``blend`` find where the pixels of one picture lie in another?

    python -m benchmarks.quality.blend --out benchmarks/results/blend-maps.json

Pairs whose truth is known. *Photographs* of scikit-image's data, windows of 256 pixels, under known warps;
what a warp brings in from beyond the photograph is its mirror image:

  small       corners moved by up to 1.5% of the side, or a spline as small
  homography  corners moved by up to 12%
  spline      thin-plate splines, 4 x 4 points moved by up to 8%
  shift       by a fifth to a third of the picture
  light       a homography, and other light: gain and gamma, channel by channel
  occlusion   a homography, and pieces of another photograph over both

*Clips* of the rendered world, 128 pixels, whose object and ground move by a sixth to a quarter of the
picture: their first and their last frame.

  epe     mean end-point error in pixels, over the pixels that have a partner in the other picture
  within  share of those pixels that are off by less than 3

Beside ``find_maps``: the same without refinement by optical flow, nearest neighbours of the same features
(of those points, made dense bilinearly), OpenCV's DIS and Farneback, scikit-image's TV-L1. Results are kept
pair by pair and method by method: the same command goes on where it was stopped.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels import world
from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.models.optical_flow import load_flow
from geokernels.pipelines.blend.features import describe
from geokernels.pipelines.blend.grids import plane, to_pixels
from geokernels.pipelines.blend.maps import MatchingConfig, find_maps, unfolded_share
from geokernels.pipelines.blend.refinement import pixels

from ..harness.machine import machine
from .known_warps import KINDS, PHOTOGRAPHS, Pair, warped_pair

CLIP_SIDE = 128
CLOSE = 3.0  # pixels
METHODS = ("transport", "without flow", "nearest neighbours", "DIS", "Farneback", "TV-L1")


def rendered_pair(seed: int) -> Pair:
    """The ends of a clip, and where the first one's pixels go."""
    chance = torch.Generator().manual_seed(seed)
    clip = world.render_clip(world.sample_scenes(1, generator=chance), 2, CLIP_SIDE, generator=chance)
    truth = still(CLIP_SIDE, CLIP_SIDE) + clip.flow[0].permute(1, 2, 0)
    return Pair(clip.frames[0], clip.frames[1], truth, clip.visible[0, 0])


def still(H: int, W: int) -> Tensor:
    """Where every pixel is, ``(H, W, 2)``."""
    return torch.from_numpy(pixels((H, W)))


def of_transport(pair: Pair, **changes) -> Tensor:
    """Our map."""
    return find_maps(pair.first, pair.second, replace(MatchingConfig(), **changes)).to_b


def of_nearest(pair: Pair) -> Tensor:
    """Every point to the most alike of the other picture."""
    size = (MatchingConfig().points,) * 2
    rows = [F.normalize(part, dim=1) for part in describe(pair.first, pair.second, size, size)]
    to = plane(size).flatten(0, 1)[(rows[0] @ rows[1].T).argmax(1)].view(*size, 2)
    H, W = pair.truth.shape[:2]
    motion = F.interpolate((to - plane(size)).permute(2, 0, 1)[None], (H, W), mode="bilinear")[0]
    return to_pixels(plane((H, W)) + motion.permute(1, 2, 0), (H, W))


def of_flow(pair: Pair, flow: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Tensor:
    """The map of an optical flow between two pictures of 8 bits."""
    shown = [
        picture.mul(255).round().byte().permute(1, 2, 0).numpy() for picture in (pair.first, pair.second)
    ]
    return still(*pair.truth.shape[:2]) + torch.from_numpy(np.ascontiguousarray(flow(*shown)))


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    import cv2

    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    return cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 5, 21, 5, 7, 1.5, 0)


def tv_l1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2gray
    from skimage.registration import optical_flow_tvl1

    down, right = optical_flow_tvl1(*(rgb2gray(picture) for picture in (first, second)), dtype=np.float32)
    return np.stack([right, down], -1)


MAPS: dict[str, Callable[[Pair], Tensor]] = {
    "transport": of_transport,
    "without flow": lambda pair: of_transport(pair, refine=False),
    "nearest neighbours": of_nearest,
    "DIS": lambda pair: of_flow(pair, load_flow()),
    "Farneback": lambda pair: of_flow(pair, farneback),
    "TV-L1": lambda pair: of_flow(pair, tv_l1),
}


def score(pair: Pair, methods: Iterable[str]) -> dict:
    """What each of the methods makes of a pair, by its name."""
    found = {}
    for name in methods:
        clock = time.process_time()
        to = MAPS[name](pair)
        seconds = time.process_time() - clock
        error = (to - pair.truth).square().sum(-1).sqrt()[pair.partnered]
        within = (error < CLOSE).float().mean().item()
        found[name] = {"epe": error.mean().item(), "within": within, "seconds": seconds}
        found[name]["unfolded"] = unfolded_share(to)
    return found


def pairs(warps: int, clips: int) -> list[tuple[str, str, int]]:
    """Kind, photograph and seed of every pair: all kinds on all photographs, and clips."""
    K, P = len(KINDS), len(PHOTOGRAPHS)
    warped = [(KINDS[i % K], PHOTOGRAPHS[i // K % P], i) for i in range(warps)]
    rendered = [("clip", "", 5000 + i) for i in range(clips)]
    # in turn, so that what is measured so far is of every kind
    both = [[*warped[2 * i : 2 * i + 2], *rendered[i : i + 1]] for i in range(max(warps, clips))]
    return [pair for part in both for pair in part]


def as_markdown(summary: dict) -> str:
    """Mean end-point error of every method, kind by kind, and the share within 3 pixels.

    Of the pairs that all methods have been measured on, but for those that have not been measured at all.
    """
    measured = set().union(*(row["of"] for row in summary["rows"]))
    lines = [f"| pairs | n | {' | '.join(METHODS)} |", "|---" * (len(METHODS) + 2) + "|"]
    for kind in (*KINDS, "clip"):
        group = [row["of"] for row in summary["rows"] if row["kind"] == kind and measured <= set(row["of"])]
        cells = [
            _told([of[name] for of in group]) if name in measured and group else "not measured"
            for name in METHODS
        ]
        lines.append(f"| {kind} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _told(rows: list[dict]) -> str:
    epe, within = (statistics.fmean(row[key] for row in rows) for key in ("epe", "within"))
    return f"{epe:.2f} px, {within:.0%}"


def main(argv: list[str] | None = None) -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--warps", type=int, default=102)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--methods", choices=METHODS, action="append", help="these alone; the rest later")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    known = {(row["kind"], row["photograph"], row["seed"]): row for row in rows}
    for key in pairs(options.warps, options.clips):
        kind, name, seed = key
        row = known.get(key)
        if row is None:
            row = {"kind": kind, "photograph": name, "seed": seed, "of": {}}
            rows.append(row)
        missing = [method for method in options.methods or METHODS if method not in row["of"]]
        if missing:
            pair = rendered_pair(seed) if kind == "clip" else warped_pair(name, kind, seed)
            row["of"] |= score(pair, missing)
            write_json(options.out, {"rows": rows, "machine": machine(), "versions": versions()})
    print(as_markdown({"rows": rows}))


if __name__ == "__main__":
    main()
