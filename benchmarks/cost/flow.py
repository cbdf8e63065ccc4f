"""What an edit costs on rectified flows of released sizes, by OIG, FlowEdit, RF-Inversion, swap and SDEdit.

    python -m benchmarks.cost.flow --shapes sd3 --out benchmarks/results/editing-cost-sd3.json
    python -m benchmarks.cost.flow --shapes flux --out benchmarks/results/editing-cost-flux.json

Counted on tensors without values: transformer, autoencoder and CLIP ViT-B/32 of the real shapes, one edit of
1024 pixels, bfloat16, each method at its published setting, OIG and the swap at 28 steps with an inversion by
Euler. Nothing is run, so no time is given. Every step is the same work, so that edits of one and of two steps
are counted, and continued to those published; memory is that of three steps. A count that was stopped
continues where it was.

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
from geokernels.pipelines.comparators import METHODS, EditModels, EditTask
from geokernels.pipelines.edit.flow_inversion import flow_inversion
from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit
from geokernels.pipelines.edit.source import EditSource
from geokernels.runs.passes import counted

from .counting import GIB, Memory
from .edit import AUTOENCODER, fused
from .table import Column, publish

SIDE, STEPS = 1024, 28
HELD = 3  # steps of the edit whose memory is counted: from the second on there is a previous one to keep
COLUMNS = (
    Column("passes", "passes", ".0f", compared=False),
    Column("TMAC an edit", "tmac", ".0f", compared=False),
    Column("peak GiB", "peak_gib", ".2f", compared=False),
)
SHAPES = {
    "sd3": "Shapes of Stable Diffusion 3 medium and ViT-B/32, one edit of 1024 pixels, bfloat16, not run",
    "flux": "Shapes of FLUX.1 dev and ViT-B/32, one edit of 1024 pixels, bfloat16, not run",
}
FIRST = "FlowEdit"
OIG = {
    "OIG": {},
    "OIG, checkpointing": {"checkpointing": True},
    "OIG, decoded at 512 pixels, checkpointing": {"decode_size": 512, "checkpointing": True},
}
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
        encoder = ClipEncoder("ViT-B-32", model, open_clip.get_tokenizer("ViT-B-32"))
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.bfloat16).requires_grad_(False)
    return pipeline, encoder


def count(run: Callable[[], None], transformer: torch.nn.Module) -> dict[str, float]:
    """Passes and multiply-adds of an edit; of a batch each of its latents is a pass."""
    with counted(transformer) as passes, fused_attention(), FlopCounterMode(display=False) as counter:
        run()
    return {"passes": passes.count, "tmac": counter.get_total_flops() / 2e12}


def peak(run: Callable[[], None], weights: list[Tensor]) -> float:
    """The most GiB that live at one time of an edit, besides the weights."""
    with fused_attention(), Memory(weights) as memory:
        base = memory.now
        run()
    return (memory.peak - base) / GIB


def fused_attention():
    """Attention that keeps no weights, as on a GPU."""
    return patch.object(F, "scaled_dot_product_attention", fused)


def continued(
    edit: Callable[[int], Callable[[], None]], steps: int, transformer: torch.nn.Module
) -> dict[str, float]:
    """The count of an edit of so many steps, of which one of one and one of two are made."""
    one, two = (count(edit(few), transformer) for few in (1, 2))
    return {name: one[name] + (steps - 1) * (two[name] - one[name]) for name in one}


def edit_by(name: str, pipeline, steps: int) -> Callable[[], None]:
    """Makes an edit of so many steps at the published settings otherwise; a swap with its inversion."""
    settings = {
        "flow_edit": {"n_max": steps},
        "rf_inversion": {"steps": steps},
        "flow_sdedit": {"steps": steps, "strength": 1.0},
        "flow_swap": {},
    }[name]

    def run() -> None:
        task = task_of(pipeline, steps, inverted=name == "flow_swap")
        METHODS[name].run(EditModels(pipeline), task, METHODS[name].settings(**settings))

    return run


def published_steps(pipeline) -> dict[str, int]:
    """How many steps each method takes on the way to the edit, as published for the pipeline's kind."""
    model = FlowModel(pipeline)
    flow_edit, rf_inversion, sdedit = (
        METHODS[name].settings().settled(model) for name in ("flow_edit", "rf_inversion", "flow_sdedit")
    )
    skipped = int(sdedit.steps - sdedit.steps * sdedit.strength)
    return {
        "flow_edit": flow_edit.n_max,
        "rf_inversion": rf_inversion.steps,
        "flow_swap": STEPS,
        "flow_sdedit": sdedit.steps - skipped,
    }


def task_of(pipeline, steps: int, *, inverted: bool) -> EditTask:
    """An edit of one picture; without its inversion where a method makes none, or one of its own."""
    shown = torch.empty(1, 3, SIDE, SIDE, dtype=torch.float32, device="meta")
    texts = ("a dog",)
    if inverted:
        source = flow_inversion(pipeline, shown, ["a cat"], steps=steps, solver="euler")
    else:
        latents = torch.empty(1, *FlowModel(pipeline).latent_shape(SIDE, SIDE), device="meta")
        source = EditSource(latents, ("a cat",), False, steps, "")
    return EditTask(shown, source, texts, texts, (0,))


def edit_by_oig(pipeline, encoder, steps: int, **settings) -> Callable[[], None]:
    """Makes an edit by OIG of so many steps, and its inversion."""
    config = OIGConfig(**settings)
    # texts are kept once they were read: before the first count, so that all have the same work
    encoder.encode_text(["a cat", "a dog"])

    def run() -> None:
        source = task_of(pipeline, steps, inverted=True).source
        edit = OIGEdit(pipeline, encoder, source, ["a dog"], config=config)
        edit.finish()
        edit.pictures()

    return run


def measure(done: dict[str, dict[str, float]], advance: Callable[[dict], None], shapes: str) -> None:
    """Every method that is not ``done``; each is added to it, and it is passed to ``advance``."""
    pipeline, encoder = models_of_shape(shapes)
    modules = [pipeline.transformer, pipeline.vae, encoder.model]
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    edits = {
        METHODS[name].title: (partial(edit_by, name, pipeline), steps)
        for name, steps in published_steps(pipeline).items()
    }
    for name, settings in OIG.items():
        edits[name] = (partial(edit_by_oig, pipeline, encoder, **settings), STEPS)
    for name, (edit, steps) in edits.items():
        row = done.setdefault(name, {})
        if "tmac" not in row:
            row |= continued(edit, steps, pipeline.transformer)
        if "peak_gib" not in row:
            row["peak_gib"] = peak(edit(HELD), weights)
            advance({name: row for name, row in done.items() if "peak_gib" in row})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", choices=SHAPES, default="sd3")
    args = parser.parse_args()

    def keep(rows: dict) -> None:
        publish(args.out, SHAPES[args.shapes], rows, COLUMNS, FIRST)

    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    measure(before.get("variants", {}), keep, args.shapes)


if __name__ == "__main__":
    main()
