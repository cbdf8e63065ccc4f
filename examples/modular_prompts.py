"""Transport between prompts as a block in a modular pipeline of SDXL, Stable Diffusion 3 or FLUX.

    python examples/modular_prompts.py --model stabilityai/stable-diffusion-xl-base-1.0 --out path.gif

The block stands behind the text encoder. Every other block is diffusers' own, and may be exchanged.
"""

import argparse
from pathlib import Path

import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines import ModularPipelineBlocks

from geokernels.media.pictures import gif, write_bytes

FOLDER = Path(__file__).parents[1] / "integrations" / "diffusers" / "prompt_transport"


def with_transport(model: str) -> ModularPipeline:
    """The model's own blocks for pictures of texts, and ours among them, with loaded weights."""
    blocks = ModularPipeline.from_pretrained(model).blocks.get_workflow("text2image")
    ours = ModularPipelineBlocks.from_pretrained(str(FOLDER), trust_remote_code=True)
    blocks.sub_blocks.insert("transport", ours, list(blocks.sub_blocks).index("text_encoder") + 1)
    pipe = blocks.init_pipeline(model)
    pipe.load_components()
    return pipe


def between(
    pipe: ModularPipeline, prompts: list[str], *, frames: int, steps: int, seed: int = 0, **more
) -> torch.Tensor:
    """Pictures along the prompts, ``(frames, 3, H, W)``."""
    return pipe(
        prompt=prompts,
        frames=frames,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        output="images",
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--prompt", action="append", help="repeat for each station")
    parser.add_argument(
        "--negative", help="without one, even an empty one, Stable Diffusion 3 is not guided here"
    )
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    prompts = args.prompt or ["a photo of a cat", "a painting of a dog in the snow"]
    settings = {"frames": args.frames, "steps": args.steps, "negative_prompt": args.negative}
    made = between(with_transport(args.model), prompts, **settings)
    write_bytes(args.out, gif(list(made)))


if __name__ == "__main__":
    main()
