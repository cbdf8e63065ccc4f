"""Transport between two prompts in any pipeline of diffusers, by ``geokernels.displacement`` alone.

    python examples/prompt_embeds.py --model runwayml/stable-diffusion-v1-5 --out cats.png

Whatever makes the embeddings, the pipeline itself or a library that weights words, rows are coupled, moved,
and given to the pipeline as ``prompt_embeds``. The same noise is used for all pictures.
"""

import argparse

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import geokernels as gk


@torch.no_grad()
def embed(pipe, prompt: str) -> torch.Tensor:
    """One prompt's rows, (1, 77, D)."""
    return pipe.encode_prompt(prompt, pipe.device, 1, False)[0]


@torch.no_grad()
def between(pipe, first: torch.Tensor, last: torch.Tensor, *, frames: int, steps: int, seed: int = 0) -> list:
    """Pictures on the way from one embedding (1, L, D) to another."""
    rows = gk.displacement(first, last, torch.linspace(0, 1, frames))[:, 0]  # (frames, L, D)
    noise = torch.Generator(pipe.device)
    return [
        pipe(
            prompt_embeds=row[None],
            negative_prompt_embeds=embed(pipe, ""),
            num_inference_steps=steps,
            generator=noise.manual_seed(seed),
        ).images[0]
        for row in rows
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
    pipe = StableDiffusionPipeline.from_pretrained(args.model)
    ends = embed(pipe, args.first), embed(pipe, args.last)
    pictures = between(pipe, *ends, frames=args.frames, steps=args.steps)
    strip = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for i, picture in enumerate(pictures):
        strip.paste(picture, (i * picture.width, 0))
    strip.save(args.out)


if __name__ == "__main__":
    main()
