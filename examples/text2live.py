"""An edit as a layer: a colour and an opacity that a text describes, and the picture below them.

    python examples/text2live.py photo.png --from "a red circle" --to "a blue circle" --out edit

writes edit.png, which other programs can lay over the photo, and composite.png. What the layer does not cover
is the photo's, to the bit. With ``--clip ViT-B-32 --clip-weights vit.safetensors`` a CLIP of open_clip
guides; without, the one of the rendered world.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from geokernels.models import load_clip
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines import LayerEditConfig, LayerEditResult, edit_layer


def paint(
    picture: Tensor, encoder: ClipEncoder, source: str, target: str, *, steps: int, seed: int = 0
) -> LayerEditResult:
    """Edit ``(3, H, W)`` in [0, 1], and say how it goes."""

    def tell(run) -> None:
        if run.index % 10 == 0 or run.done:
            print(f"step {run.index} of {steps}: loss {run.loss:.3f}")

    chance = torch.Generator().manual_seed(seed)
    config = LayerEditConfig(steps=steps)
    return edit_layer(picture, [encoder], source, target, config=config, generator=chance, callback=tell)


def main() -> None:
    from geokernels.media.pictures import read_picture, write_layer, write_picture

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--to", dest="target", required=True)
    parser.add_argument("--clip", default="world")
    parser.add_argument("--clip-weights", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("edit"))
    arguments = parser.parse_args()
    picture = read_picture(arguments.picture)
    encoder = load_clip(arguments.clip, arguments.clip_weights)
    found = paint(picture.rgb, encoder, arguments.source, arguments.target, steps=arguments.steps)
    write_layer(arguments.out / "edit.png", found.edit, found.alpha)
    write_picture(arguments.out / "composite.png", found.composite, picture.alpha)
    kept = (found.alpha == 0).float().mean().item()
    print(f"{kept:.0%} of the picture is untouched; {arguments.out}")


if __name__ == "__main__":
    main()
