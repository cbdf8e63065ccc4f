"""Points tracked through a clip by transport of what they look like.

    python examples/track_points.py --seed 1 --out tracks.png

renders a clip whose motion is known, follows points of its object from the first frame to the last with
``geokernels.match_points``, and says how far they are off. Frames are matched with the first one: errors do
not add up along the way. With features of your own (a DINO, a CLIP, a point cloud network) the loop stays.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import geokernels as gk
from geokernels import world
from geokernels.pipelines.blend.features import describe
from geokernels.pipelines.blend.grids import plane
from geokernels.pipelines.blend.smoothing import smoothed

GRID = (32, 32)  # points of a frame
NEAR = (1.0, 10.0)  # cost of a squared distance from where a point is expected, in half widths: twice a frame
WIDTH = 2.0  # of the window over which motion is smoothed, in points of the grid


def track(frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Follow points of the first frame.

    Args:
        frames: ``(T, 3, H, W)`` in [0, 1].
        points: ``(K, 2)``, (x, y) in pixels.

    Returns:
        Where they are in every frame, ``(T, K, 2)``, and how far that is to be believed, ``(T, K)``.
    """
    size, here = torch.tensor(frames.shape[:1:-1]), plane(GRID).flatten(0, 1)
    cells = torch.tensor(GRID[::-1]) / 2
    wanted, expected = ((2 * points + 1) / size - 1)[None, None], here
    tracks, trusted = [points], [torch.ones(len(points))]
    for frame in frames[1:]:
        x, y = describe(frames[0], frame, GRID, GRID)
        for weight in NEAR:
            found = gk.match_points(
                x, y, expected, here, eps=0.03, reach=0.15, position_weight=weight, sigma=0.1, tol=1e-3
            )
            # points move as those about them that look alike
            sides = (part.mul(cells).view(*GRID, 2) for part in (found.map, expected))
            colours = F.interpolate(frames[:1], GRID, mode="area")[0]
            there = smoothed(*sides, found.confidence.view(GRID), colours, WIDTH)
            expected = there.flatten(0, 1) / cells
        # how far the points of the grid went, and how surely, between them
        planes = torch.cat([expected - here, found.confidence[:, None]], 1).T.view(1, 3, *GRID)
        motion = F.grid_sample(planes, wanted, padding_mode="border", align_corners=False)[0, :, 0].T
        tracks.append(points + motion[:, :2] * size / 2)
        trusted.append(motion[:, 2])
    return torch.stack(tracks), torch.stack(trusted)


def true_tracks(clip: world.Clip, points: Tensor) -> Tensor:
    """Where points of the object really are in every frame, ``(T, K, 2)``."""
    side = clip.frames.shape[3]
    maps = clip.object_map.double()
    on_object = ((2 * points + 1) / side - 1).double() @ maps[0, :, :2].T + maps[0, :, 2]
    there = torch.linalg.solve(maps[:, :, :2], (on_object - maps[:, None, :, 2]).mT).mT
    return (((there + 1) * side - 1) / 2).float()


def main() -> None:
    from geokernels.media.pictures import strip, write_picture

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("tracks.png"))
    arguments = parser.parse_args()
    chance = torch.Generator().manual_seed(arguments.seed)
    scene = world.sample_scenes(1, generator=chance)
    clip = world.render_clip(scene, arguments.frames, 128, generator=chance)
    inside = F.max_pool2d(-clip.masks[0], 9, 1, 4)[0] == -1  # clear of the outline
    y, x = inside.nonzero()[:: max(1, int(inside.sum()) // 20)].T
    points = torch.stack([x, y], 1).float()
    tracks, trusted = track(clip.frames, points)
    error = (tracks - true_tracks(clip, points)).square().sum(2).sqrt()
    way = (true_tracks(clip, points)[-1] - points).square().sum(1).sqrt().mean()
    for t in range(1, len(tracks)):
        print(f"frame {t}: {error[t].mean():.1f} px off, confidence {trusted[t].mean():.2f}")
    print(f"the object went {way:.0f} px; {arguments.out}")
    shown = clip.frames.clone()
    for frame, places in zip(shown, tracks.round().long().clamp(1, 126)):
        for x, y in places.tolist():
            frame[:, y - 1 : y + 2, x - 1 : x + 2] = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    write_picture(arguments.out, strip(list(shown), height=128))


if __name__ == "__main__":
    main()
