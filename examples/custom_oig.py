"""Edit a picture by OIG, as a custom pipeline that diffusers loads by itself.

    python examples/custom_oig.py photo.png --model runwayml/stable-diffusion-v1-5 \
        --clip ViT-B-32/laion2b_s34b_b79k --from "a cat" --to "a fox" --out fox.png

``custom_pipeline`` is a folder with one line of Python in it, which names a class of geokernels: any program
that lets its user choose a custom pipeline can take it.
"""

import argparse
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from geokernels.media.pictures import fit, read_picture, write_picture
from geokernels.models import load_clip

FOLDER = Path(__file__).parents[1] / "integrations" / "diffusers" / "oig"


def edit(
    model: str, picture: torch.Tensor, source: str, target: str, encoder, *, steps: int = 50
) -> torch.Tensor:
    """The picture (3, H, W) as the target text has it."""
    pipe = DiffusionPipeline.from_pretrained(model, custom_pipeline=str(FOLDER), trust_remote_code=True)
    noise = pipe.invert(picture[None], [source], steps=steps)
    return pipe(noise, [target], encoder, output_type="pt").images[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture")
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--clip", default="world")
    parser.add_argument("--from", dest="source", default="a photo of a cat")
    parser.add_argument("--to", dest="target", default="a photo of a fox")
    parser.add_argument("--size", type=int, default=512, help="longest side, in pixels")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    picture = fit(read_picture(args.picture).rgb, args.size)
    made = edit(args.model, picture, args.source, args.target, load_clip(args.clip), steps=args.steps)
    write_picture(args.out, made)


if __name__ == "__main__":
    main()
