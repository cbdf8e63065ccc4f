"""Transport between two prompts of SDXL: one permutation of the joined rows, and an arc of pooled vectors.

python examples/sdxl_prompt_embeds.py --model stabilityai/stable-diffusion-xl-base-1.0 --out cats.png
"""

import argparse

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

import geokernels as gk
from geokernels.pipelines.interpolate.couplings import slerp


@torch.no_grad()
def between(pipe, first: str, last: str, *, frames: int, steps: int, seed: int = 0) -> list:
    """Pictures on the way from one prompt to another."""
    (a, negative, pooled_a, pooled_negative), (b, _, pooled_b, _) = (
        pipe.encode_prompt(prompt, device=pipe.device) for prompt in (first, last)
    )
    times = torch.linspace(0, 1, frames)
    rows = gk.displacement(a, b, times)[:, 0]  # both encoders' features of a token move together
    pooled = slerp(pooled_a[0], pooled_b[0], times)
    noise = torch.Generator(pipe.device)
    return [
        pipe(
            prompt_embeds=row[None],
            pooled_prompt_embeds=vector[None],
            negative_prompt_embeds=negative,
            negative_pooled_prompt_embeds=pooled_negative,
            num_inference_steps=steps,
            generator=noise.manual_seed(seed),
        ).images[0]
        for row, vector in zip(rows, pooled)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--from", dest="first", default="a photo of a cat")
    parser.add_argument("--to", dest="last", default="a painting of a dog in the snow")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    pipe = StableDiffusionXLPipeline.from_pretrained(args.model)
    pictures = between(pipe, args.first, args.last, frames=args.frames, steps=args.steps)
    strip = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for i, picture in enumerate(pictures):
        strip.paste(picture, (i * picture.width, 0))
    strip.save(args.out)


if __name__ == "__main__":
    main()
