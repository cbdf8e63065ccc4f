"""What an edit costs on rectified flows of the released sizes: OIG beside FlowEdit, RF-Inversion, swap and SDEdit.

    python -m benchmarks.cost.flow --shapes sd3 --out benchmarks/results/editing-cost-sd3.json
    python -m benchmarks.cost.flow --shapes flux --out benchmarks/results/editing-cost-flux.json

Counted on tensors without values: transformer, autoencoder and CLIP ViT-B/32 of the real shapes, one edit of
1024 pixels, bfloat16, each method at its published setting, OIG and the swap at 28 steps with an inversion by
Euler. Nothing is run, so no time is given. A count that was stopped continues where it was.

  passes    of the transformer, forward, for one edit with its inversion; a guided pair counts as two
  TMAC      multiply-adds of the whole edit, 1e12, as in ``benchmarks.cost.edit``
  peak      the most that lives at one time, weights left out, GiB
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geokernels.models.clip import ClipEncoder
from geokernels.models.flow import FlowModel
from geokernels.models.latents import decode
from geokernels.pipelines.comparators import METHODS, EditModels, EditTask
from geokernels.pipelines.edit.flow_inversion import flow_inversion
from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit

from .counting import GIB, Memory
from .edit import AUTOENCODER, fused
from .table import Column, publish

SIDE, STEPS = 1024, 28
COLUMNS = (
    Column("passes", "passes", ".0f", compared=False),
    Column("TMAC an edit", "tmac", ".0f"),
    Column("peak GiB", "peak_gib", ".2f"),
)
SHAPES = {
    "sd3": "Shapes of Stable Diffusion 3 medium and ViT-B/32, one edit of 1024 pixels, bfloat16, not run",
    "flux": "Shapes of FLUX.1 dev and ViT-B/32, one edit of 1024 pixels, bfloat16, not run",
}
FIRST = "FlowEdit"
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}


def pipeline_of_shape(shapes: str):
    """A pipeline of the real shapes but for its text encoders, of which only the widths are real."""
    import diffusers
    import transformers

    from geokernels.testing.pipelines import clip_text, clip_tokenizer, t5_text, t5_tokenizer

    latents = {"latent_channels": 16, "shift_factor": 0.06, "use_quant_conv": False}
    vae = diffusers.AutoencoderKL(**{**AUTOENCODER, **latents, "sample_size": SIDE}).eval()
    parts = {"vae": vae, "tokenizer": clip_tokenizer()}
    if shapes == "sd3":
        projected = partial(clip_text, transformers.CLIPTextModelWithProjection)
        parts |= {"text_encoder": projected(width=768), "text_encoder_2": projected(width=1280)}
        parts |= {"tokenizer_2": clip_tokenizer(), "text_encoder_3": None, "tokenizer_3": None}
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        transformer = diffusers.SD3Transformer2DModel(**SD3).eval()
        return diffusers.StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler, **parts)
    parts |= {"text_encoder": clip_text(width=768), "text_encoder_2": t5_text(4096)}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    transformer = diffusers.FluxTransformer2DModel(guidance_embeds=True).eval()
    return diffusers.FluxPipeline(
        transformer=transformer, scheduler=scheduler, tokenizer_2=t5_tokenizer(), **parts
    )


def models_of_shape(shapes: str):
    """The pipeline and a CLIP, without values."""
    import open_clip

    with torch.device("meta"):
        pipeline = pipeline_of_shape(shapes)
        model = open_clip.create_model("ViT-B-32", device="meta", load_weights=False)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.bfloat16).requires_grad_(False)
    return pipeline, ClipEncoder("ViT-B-32", model, open_clip.get_tokenizer("ViT-B-32"))


def count(run: Callable[[], int], weights: list[Tensor]) -> dict[str, float]:
    """Passes, multiply-adds and memory of a whole edit, which is made twice; ``run`` returns its passes."""
    with (
        patch.object(F, "scaled_dot_product_attention", fused),
        patch.object(FlowModel, "pictures", lambda model, latents: decode(model.vae, latents)),
    ):
        with Memory(weights) as memory:
            base = memory.now
            run()
        with FlopCounterMode(display=False) as counter:
            passes = run()
    return {
        "passes": passes,
        "tmac": counter.get_total_flops() / 2e12,
        "peak_gib": (memory.peak - base) / GIB,
    }


def edit_by(name: str, pipeline, task: EditTask) -> int:
    """An edit at the published settings."""
    models = []
    begin = FlowModel.__init__

    def noting(self, given):
        begin(self, given)
        models.append(self)

    with patch.object(FlowModel, "__init__", noting):
        if name == "flow_swap":
            task = task_of(pipeline, inverted=True)
        METHODS[name].run(EditModels(pipeline), task, METHODS[name].settings())
    return sum(model.passes for model in models)
