"""What a step of an edit costs at the size of Stable Diffusion 1.4, beside the published pattern of work.

    python -m benchmarks.cost.edit --out benchmarks/results/editing-cost.json
    python -m benchmarks.cost.edit --shapes sdxl --out benchmarks/results/editing-cost-sdxl.json

Counted on tensors without values: U-Net, autoencoder and CLIP ViT-B/32 of the real shapes, one edit of 512
pixels, float32. Nothing is run, so no time is given. A count that was stopped continues where it was. Of
Stable Diffusion XL at 1024 pixels there is no published pattern, and fewer variants.

  TMAC      multiply-adds of a step, 1e12, by torch's counter of flops, the source's part of it included; what
            fused attention computes twice, forth and again on the way back, is counted once
  saved     the most that forward passes and losses keep for the way back at one time, each storage once,
            weights left out, GiB; where checkpointing computes again on the way back, that is not in it
  peak      the most that lives at one time in a step, weights left out, GiB; the pattern's also has the
            source's features of all steps; attention is fused here
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geokernels.models.clip import ClipEncoder
from geokernels.models.denoiser import Denoiser
from geokernels.pipelines.edit import oig
from geokernels.pipelines.edit.ddim import schedule_of
from geokernels.pipelines.edit.source import EditSource

from .counting import GIB, Memory, Saved
from .published.oig import PublishedPattern
from .table import Column, publish

STEPS, WIDTH = 50, 768
# as published, but for what makes "exact"
PLAIN = {"recipe": "published", "gradient": "exact", "cycle_steps": 4}
PUBLISHED = "published pattern"
COLUMNS = (
    Column("TMAC a step", "tmac", ".2f"),
    Column("saved GiB", "saved_gib", ".2f"),
    Column("peak GiB", "peak_gib", ".2f"),
)
STANDARD = {"sample_size": 64, "cross_attention_dim": WIDTH, "attention_head_dim": 8}
CHANNELS = (128, 256, 512, 512)
AUTOENCODER = {
    "block_out_channels": CHANNELS,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


XL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 768 + 1280,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}
SHAPES = {
    "sd14": "Shapes of Stable Diffusion 1.4 and ViT-B/32, one edit of 512 pixels, 50 steps, float32, not run",
    "sdxl": "Shapes of Stable Diffusion XL and ViT-B/32, one edit of 1024 pixels, 50 steps, float32, not run",
}


def pipeline_of_shape(shapes: str):
    """A pipeline of the real shapes but for its text encoders, of which only the width is real."""
    import diffusers
    import transformers

    from geokernels.testing.pipelines import clip_text, clip_tokenizer

    autoencoder = AUTOENCODER if shapes == "sd14" else {**AUTOENCODER, "sample_size": 1024}
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    parts = {
        "vae": diffusers.AutoencoderKL(**autoencoder).eval(),
        "tokenizer": clip_tokenizer(),
        "scheduler": scheduler,
    }
    parts["text_encoder"] = clip_text(width=WIDTH)
    if shapes == "sd14":
        unet = diffusers.UNet2DConditionModel(**STANDARD).eval()
        unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return diffusers.StableDiffusionPipeline(unet=unet, **parts, **unchecked)
    second = clip_text(transformers.CLIPTextModelWithProjection, width=1280)
    unet = diffusers.UNet2DConditionModel(**XL).eval()
    parts |= {"text_encoder_2": second, "tokenizer_2": clip_tokenizer()}
    return diffusers.StableDiffusionXLPipeline(unet=unet, **parts)


def models_of_shape(device: str, shapes: str = "sd14"):
    """A pipeline and a CLIP of the real shapes and a tiny autoencoder, untrained; on meta without values."""
    import diffusers
    import open_clip

    with torch.device(device):
        pipeline = pipeline_of_shape(shapes)
        tiny = diffusers.AutoencoderTiny().eval()
        model = open_clip.create_model("ViT-B-32", device=device, load_weights=False)
        encoder = ClipEncoder("ViT-B-32", model, open_clip.get_tokenizer("ViT-B-32"))
    return pipeline, encoder, tiny


def fused(query: Tensor, key: Tensor, value: Tensor, *args, **settings) -> Tensor:
    """The attention that a device with values would choose, which keeps no weights of it."""
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]


def count(step: Callable[[], None], weights: list[Tensor], held: list[Tensor]) -> dict[str, float]:
    """Multiply-adds and memory of a step; two are taken.

    Args:
        step: Takes one step of a run.
        weights: Of the models.
        held: What lives between steps besides.
    """
    saved = Saved(weights)
    with (
        patch.object(F, "scaled_dot_product_attention", fused),
        patch.object(torch.autograd, "grad", saved.closing(torch.autograd.grad)),
        patch.object(torch.Tensor, "backward", saved.closing(torch.Tensor.backward)),
        torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack),
        Memory(weights) as memory,
    ):
        base = memory.now
        for tensor in held:
            memory.note(tensor)
        step()
    with FlopCounterMode(display=False) as counter:
        step()
    return {
        "tmac": counter.get_total_flops() / 2e12,
        "saved_gib": saved.peak / GIB,
        "peak_gib": (memory.peak - base) / GIB,
    }


def source_of(pipeline, real: bool) -> EditSource:
    noise = torch.empty(1, *Denoiser(pipeline).latent_shape(), device="meta")
    return EditSource(noise, ("a cat",), real, STEPS, "")


def count_ours(pipeline, encoder, weights, *, real: bool, decoder=None, **settings) -> dict[str, float]:
    """A step of ours, the second and those after it."""
    run = oig.OIGEdit(
        pipeline,
        encoder,
        source_of(pipeline, real),
        ["a dog"],
        config=oig.OIGConfig(**{**PLAIN, **settings}),
        decoder=decoder,
    )
    run.step()
    held = [run.sources, run.edits, *run.previous, *([run.cycle.latents] if run.cycle else [])]
    return count(run.step, weights, held)


def count_published(pipeline, encoder, weights) -> dict[str, float]:
    """A step of the published pattern, with its share of the loop over the source."""
    texts = [torch.empty(1, encoder.dim, device="meta") for _ in range(2)]
    noise = torch.empty(1, 4, 64, 64, device="meta")
    denoiser, schedule = Denoiser(pipeline), schedule_of(pipeline.scheduler, STEPS)
    words = [denoiser.read([""]) for _ in range(3)]
    run = PublishedPattern(denoiser, encoder, schedule, noise, words, texts)
    with FlopCounterMode(display=False) as counter:
        run.source_pass(0)
    # the others keep as much
    run.stored += [[torch.empty_like(part) for part in run.stored[0]] for _ in range(1, STEPS)]
    run.step()
    stored = [part for features in run.stored for part in features]
    costs = count(run.step, weights, [*stored, *run.previous])
    costs["tmac"] += counter.get_total_flops() / 2e12
    return costs


def measure(done: dict[str, dict[str, float]], advance: Callable[[dict], None], shapes: str = "sd14") -> None:
    """Every variant that is not ``done``; each is added to it, and it is passed to ``advance``."""
    pipeline, encoder, tiny = models_of_shape("meta", shapes)
    modules = [pipeline.unet, pipeline.vae, tiny, encoder.model]
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    variants = {
        "exact": {},
        "exact, tiny decoder": {"decoder": tiny},
        "exact, checkpointing": {"checkpointing": True},
        "exact, tiny decoder, checkpointing": {"decoder": tiny, "checkpointing": True},
        PUBLISHED: None,
        "exact, source inverted": {"real": True},
        "exact, decoded at 256 pixels": {"decode_size": 256},
        "exact, cycle": {"cycle": 1.0},
        "exact, cycle, source inverted": {"cycle": 1.0, "real": True},
        "exact, cycle, checkpointing": {"cycle": 1.0, "checkpointing": True},
    }
    if shapes == "sdxl":
        variants = {name: variants[name] for name in list(variants)[:4]}
        variants["exact, decoded at 512 pixels, checkpointing"] = {"decode_size": 512, "checkpointing": True}
    for name, settings in variants.items():
        if name in done:
            continue
        if settings is None:
            done[name] = count_published(pipeline, encoder, weights)
            # it let the weights ask for gradients
            for module in modules:
                module.requires_grad_(False)
        else:
            done[name] = count_ours(pipeline, encoder, weights, **{"real": False, **settings})
        advance(done)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", choices=SHAPES, default="sd14")
    args = parser.parse_args()

    def keep(rows: dict) -> None:
        pattern = PUBLISHED if args.shapes == "sd14" else "exact"
        publish(args.out, SHAPES[args.shapes], rows, COLUMNS, pattern)

    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    measure(before.get("variants", {}), keep, args.shapes)


if __name__ == "__main__":
    main()
