"""Transport between prompts whose words are weighted by compel, and pictures of the path in one call.

pip install compel
python examples/compel_prompts.py --model runwayml/stable-diffusion-v1-5 --out path.gif
"""

import argparse

import torch
from compel import Compel

from geokernels.media.pictures import gif, write_bytes
from geokernels.models import load_text_to_image
from geokernels.models.text_to_image import CONTENT, Embedding
from geokernels.pipelines import PromptInterpolationConfig, interpolate_prompts


@torch.no_grad()
def between(pipe, prompts: list[str], config: PromptInterpolationConfig, *, seed: int = 0) -> torch.Tensor:
    """Pictures along weighted prompts, ``(frames, 3, H, W)``."""
    weigh = Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)
    rows = [weigh(prompt)[0] for prompt in prompts]
    # which rows are padding is compel's affair: with rows="all" it does not matter
    keys = [Embedding(row, torch.full((len(row),), CONTENT, device=row.device)) for row in rows]
    chance = torch.Generator().manual_seed(seed)
    return interpolate_prompts(pipe, keys, config=config, generator=chance).frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--prompt", action="append", help="repeat for each station")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    prompts = args.prompt or ["a (cat)1.3 in the snow", "a dog in the (snow)0.6"]
    pictures = between(load_text_to_image(args.model), prompts, PromptInterpolationConfig())
    write_bytes(args.out, gif(list(pictures)))


if __name__ == "__main__":
    main()
