"""A clip edited by one picture of its foreground: the atlas is fitted once and edited as often as one likes.

    python examples/text2live_video.py clip.mp4 --from "a red circle" --to "a blue circle" --out edit

fits layered atlases to the clip, keeps them as atlas.safetensors, and writes edited.mp4. With ``--atlas``
they are used again for another edit of the same clip. A CLIP of open_clip guides with ``--clip ViT-B-32
--clip-weights vit.safetensors``; without, the one of the rendered world. ``geokernels video`` does the same
with checkpoints and a report.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from geokernels.models import LayeredAtlas, load_atlas, load_clip, load_flow, save_atlas
from geokernels.pipelines import (
    AtlasFitConfig,
    Footage,
    VideoEditConfig,
    edit_video,
    fit_atlas,
    prepare_footage,
)


def fit(footage: Footage, *, steps: int | None, seed: int) -> LayeredAtlas:
    """Fit atlases by the recipe for frames of this size, and say how it goes."""

    def tell(run) -> None:
        if run.index % 100 == 0 or run.done:
            print(f"atlas, step {run.index} of {run.config.steps}: loss {run.loss:.4f}")

    config = AtlasFitConfig.of_size(footage.size, **({} if steps is None else {"steps": steps}))
    chance = torch.Generator().manual_seed(seed)
    return fit_atlas(footage, config=config, generator=chance, callback=tell).atlas


def main() -> None:
    from geokernels.media.clips import VideoSource
    from geokernels.media.films import Sound, mp4_writer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path, help="a video, or a folder of frames")
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--to", dest="target", required=True)
    parser.add_argument("--layer", choices=("foreground", "background"), default="foreground")
    parser.add_argument("--masks", type=Path, help="a folder, white for foreground; else found from motion")
    parser.add_argument("--atlas", type=Path, help="of an earlier run on the same clip")
    parser.add_argument("--clip-model", "--clip", default="world")
    parser.add_argument("--clip-weights", type=Path)
    parser.add_argument("--fit-steps", type=int)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("edit"))
    arguments = parser.parse_args()

    clip = VideoSource(arguments.clip)
    masks = VideoSource(arguments.masks, what="--masks").masks() if arguments.masks else None
    times = []

    def frames() -> Iterator[Tensor]:
        for frame, time in clip.timed():
            times.append(time)
            yield frame

    footage = prepare_footage(frames(), load_flow(), masks=masks)
    if arguments.atlas:
        atlas = load_atlas(arguments.atlas)
    else:
        atlas = fit(footage, steps=arguments.fit_steps, seed=arguments.seed)
        save_atlas(atlas, arguments.out / "atlas.safetensors")
    found = edit_video(
        footage,
        atlas,
        [load_clip(arguments.clip_model, arguments.clip_weights)],
        arguments.source,
        arguments.target,
        config=VideoEditConfig(layer=arguments.layer, steps=arguments.steps),
        generator=torch.Generator().manual_seed(arguments.seed),
    )
    with mp4_writer(arguments.out / "edited.mp4", sound=Sound(clip.path, len(times))) as add:
        for frame, time in zip(found.frames, times):
            add(frame, time)
    print(f"{len(footage)} frames edited; {arguments.out / 'edited.mp4'}")


if __name__ == "__main__":
    main()
