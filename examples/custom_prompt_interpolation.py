"""Pictures on the way between prompts, by a custom pipeline that diffusers loads by itself.

python examples/custom_prompt_interpolation.py --model runwayml/stable-diffusion-v1-5 --out path.gif
"""

import argparse
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from geokernels.media.pictures import gif, write_bytes

FOLDER = Path(__file__).parents[1] / "integrations" / "diffusers" / "prompt_interpolation"


def between(model: str, prompts: list[str], *, frames: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Pictures along the prompts, ``(frames, 3, H, W)``."""
    pipe = DiffusionPipeline.from_pretrained(model, custom_pipeline=str(FOLDER), trust_remote_code=True)
    chance = torch.Generator().manual_seed(seed)
    return pipe(prompts, generator=chance, frames=frames, num_inference_steps=steps, output_type="pt").images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--prompt", action="append", help="repeat for each station")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    prompts = args.prompt or ["a photo of a cat", "a painting of a dog in the snow"]
    made = between(args.model, prompts, frames=args.frames, steps=args.steps)
    write_bytes(args.out, gif(list(made)))


if __name__ == "__main__":
    main()
