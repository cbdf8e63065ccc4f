"""What the world's CLIPs are: their sizes, and the files they are shipped as."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from geokernels._files import replacing, write_json

from .clip_data import Captions

VOCABULARY = 49408  # of open_clip's tokenizer
SCALE_LIMIT = 3.4  # log of the largest logit scale


@dataclass(frozen=True)
class Config:
    """Sizes, steps and rates; the defaults are those of the model that guides."""

    name: str = "world-clip"
    seed: int = 0
    picture: int = 64
    # open_clip's configuration of the image tower
    vision: dict = field(default_factory=lambda: {"layers": [1, 1, 1, 1], "width": 24, "head_width": 64})
    text_width: int = 56
    text_heads: int = 4
    text_layers: int = 3
    embed_dim: int = 128
    pairs: int = 64  # a batch holds both pictures of a pair
    robust_pairs: int = 32
    outlines: int = 16  # scenes shown beside outlines that are no shape, in the later stages
    reading: float = 0.5  # weight of the head that reads every attribute, in the clean stage
    views: float = 0.7  # share of clean pictures that are cropped, blurred and noisy
    masks: int = 0  # the layer from whose patches the mask is drawn in the clean stage; 0 for no such heads
    steps: dict[str, int] = field(default_factory=lambda: {"clean": 1000, "captions": 600, "robust": 400})
    rates: dict[str, float] = field(
        default_factory=lambda: {"clean": 1.2e-3, "captions": 1e-3, "robust": 7e-4}
    )
    attack_steps: int = 2
    average: float = 0.995  # of the robust stage's weights
    robust_share: float = 0.75  # of the robust weights in what is shipped; the rest is from before that stage
    save_every: int = 50


# The model that guides, and one as unlike it as a CLIP can be, for evaluation alone.
MODELS = {
    "world": Config(),
    "evaluation": Config(
        name="world-evaluation-clip",
        seed=1,
        vision={
            "layers": 4,
            "width": 96,
            "head_width": 32,
            "patch_size": 8,
            "pos_embed_type": "sin_cos_2d",
            "pool_type": "avg",
        },
        text_width=28,
        text_heads=2,
        text_layers=2,
        embed_dim=96,
        pairs=32,
        outlines=0,
        reading=1.0,
        views=0.3,  # it sees whole pictures, not the views that guide
        masks=2,
        # "longer" is the clean stage once more: after the first, shapes had only begun to be told apart
        steps={"clean": 1800, "longer": 3000, "captions": 200},
        rates={"clean": 1.5e-3, "longer": 1.5e-3, "captions": 5e-4},
    ),
}

# Tiny networks that take the same way in a few steps.
QUICK = {
    "world": replace(
        MODELS["world"],
        vision={**MODELS["world"].vision, "width": 8},
        text_width=16,
        text_layers=1,
        pairs=8,
        robust_pairs=8,
        outlines=4,
        steps={"clean": 6, "captions": 3, "robust": 4},
        save_every=3,
    ),
    "evaluation": replace(
        MODELS["evaluation"],
        vision={**MODELS["evaluation"].vision, "layers": 2, "width": 32},
        text_width=16,
        text_layers=1,
        pairs=8,
        steps={"clean": 3, "longer": 1, "captions": 4},
        save_every=3,
    ),
}


def architecture(config: Config, vocabulary: int = VOCABULARY) -> dict:
    """open_clip's model configuration."""
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {"image_size": config.picture, **config.vision},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": vocabulary,
            "width": config.text_width,
            "heads": config.text_heads,
            "layers": config.text_layers,
        },
    }


def export(config: Config, model: CLIP, captions: Captions, folder: Path, name: str, facts: dict) -> Path:
    """Write the model as open_clip would read it: fp16 safetensors, its configuration, and where it is from.

    The rows of tokens that never occurred are zero: they compress, and tell a reader what the model knows.
    """
    weights = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    rows = torch.zeros(VOCABULARY, config.text_width, dtype=torch.float16)
    rows[captions.used] = weights["token_embedding.weight"]
    # padding comes after the end of the text and is never read
    rows[0] = 0
    weights["token_embedding.weight"] = rows
    weights["logit_scale"] = weights["logit_scale"].clamp(max=SCALE_LIMIT)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    with replacing(path) as partial:
        save_file(weights, partial)
    write_json(path.with_suffix(".json"), architecture(config))
    record = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        **facts,
    }
    write_json(folder / f"{name}.record.json", record)
    return path


def facts_of(config: Config, seconds: dict[str, float]) -> dict:
    """How the weights were made: sizes, steps, seed, seconds."""
    return {
        "config": asdict(config),
        "seconds": {k: round(v) for k, v in seconds.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
