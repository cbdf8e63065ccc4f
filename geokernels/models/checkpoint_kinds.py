"""What a file of tensors is, told by their names, and what to do with one that was not asked for."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of file that people mistake for another.

    Attributes:
        key: By which code speaks of it.
        pattern: What some name in it matches.
        said: What it is, and the remedy.
    """

    key: str
    pattern: str
    said: str


# The first that matches counts.
KINDS = (
    Kind(
        "lora",
        r"^lora_(unet|te\d?)_|[._]lora_(up|down|[AB])\.|[._]lora\.(up|down)\.|_lora\.(up|down)\.",
        "it is a LoRA, which changes a model and is none: merge it into its model by diffusers "
        "(load_lora_weights, fuse_lora, unload_lora_weights, save_pretrained) and give that folder",
    ),
    Kind("diffusion", r"^(model\.)?diffusion_model\.", "it is a whole diffusion model: give it as --model"),
    Kind(
        "siglip",
        r"^vision_model\.head\.",
        "these are transformers' SigLIP weights: give open_clip's file of the same model, "
        "open_clip_model.safetensors of the hub's timm/ repository",
    ),
    Kind(
        "transformers",
        r"^vision_model\.",
        "these are transformers' CLIP weights: give them as --clip-weights, their architecture as --clip, "
        "and leave the config.json of their model beside them",
    ),
    Kind(
        "text",
        r"^text_model\.",
        "this is transformers' CLIP for texts alone, a part of a diffusion pipeline: give the whole folder "
        "of the pipeline as --model",
    ),
    Kind(
        "clip",
        r"^(visual\.|text\.transformer\.|transformer\.resblocks\.)",
        "these are CLIP weights: give them as --clip-weights with their architecture as --clip",
    ),
    Kind("stylegan3", r"^synthesis\.input\.(freqs|phases)", "it is a StyleGAN3, and only StyleGAN2 is read"),
    Kind(
        "discriminator",
        r"^(convs\.\d+\.conv[12]\.|final_linear\.)",
        "it is a discriminator: give the generator, g_ema, of the same training",
    ),
    Kind(
        "generator",
        r"^(style\.\d|convs\.\d|to_rgbs\.\d|synthesis\.b\d|mapping\.fc\d)",
        "it is a StyleGAN2 generator: give it as --model of geokernels adapt",
    ),
    Kind(
        "part",
        r"^(down_blocks|up_blocks|mid_block|encoder\.down_blocks|decoder\.up_blocks)\.",
        "it is one part of a diffusers pipeline: give the pipeline's whole folder as --model",
    ),
    Kind(
        "lin",
        r"^lin\d\.model\.\d\.weight",
        "these are LPIPS' own weights of channels, which its package brings along: give torchvision's "
        "backbone, such as alexnet-owt-7be5be79.pth",
    ),
    Kind(
        "transformer",
        r"^(\w+\.)?(embeddings\.|encoder\.layer\.\d)",
        "these are transformers' weights: give the file of the model's authors, or timm's",
    ),
    Kind("vit", r"^(cls_token|patch_embed\.)", "it is a vision transformer in the names of timm and DINO"),
    Kind("backbone", r"^features\.\d+\.", "it is a classifier of torchvision, a backbone for LPIPS"),
    Kind("resnet", r"^(layer1\.\d|conv1\.weight)", "it is a ResNet that classifies"),
)


def kind_of(names: Iterable[str], asked: str = "") -> str | None:
    """What has tensors of these names, and the remedy; None if that is not known, or is what was asked for.

    Args:
        names: Of the tensors.
        asked: The key of the kind that was asked for.
    """
    names = list(names)
    match = next((kind for kind in KINDS if any(re.search(kind.pattern, name) for name in names)), None)
    return None if match is None or match.key == asked else match.said


def instead(names: Iterable[str], asked: str = "") -> str:
    """What :func:`kind_of` says, as the end of a sentence; empty where there is nothing to say."""
    kind = kind_of(names, asked)
    return "" if kind is None else f"; {kind}"
