"""What each command needs on a card, by the counts at real sizes; none of it was run on one.

    python -m benchmarks.cost.card --out benchmarks/results/weights.json

counts the weights, on tensors without values: of networks, what their optimisers keep, CLIP, and of diffusion
models U-Net, autoencoder and text encoders. What steps need beside them is in the files of the other counts.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.models import LayeredAtlas
from geokernels.pipelines import AtlasFitConfig, LayerEditConfig
from geokernels.pipelines.morph.skip_network import SkipNetwork

from ..harness.machine import machine
from .counting import GIB
from .edit import models_of_shape

MADGRAD, ADAM = 3, 2  # numbers that they keep for each of a network's
CARD = 8  # GiB
SECOND = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}

Row = tuple[str, str, str, float, float]


def parameters(*modules: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for module in modules for p in module.parameters())


def count_weights() -> dict[str, float]:
    """GiB of weights in float32, by what is loaded."""
    import transformers

    pipelines = {shapes: models_of_shape("meta", shapes) for shapes in ("sd14", "sdxl")}
    with torch.device("meta"):
        first = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
        )
        second = transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(**SECOND, projection_dim=1280)
        )
    chance = torch.Generator().manual_seed(0)
    layer = SkipNetwork(LayerEditConfig(recipe="published").widths, generator=chance)
    motion = torch.zeros(2, 70, 2, 3, dtype=torch.float32)
    atlas = LayeredAtlas(motion, (432, 768), AtlasFitConfig(recipe="published").shape, generator=chance)
    clip = parameters(pipelines["sd14"][1].model)
    counts = {
        "layer": (1 + MADGRAD) * parameters(layer) + clip,
        "fit": (1 + ADAM) * parameters(atlas),
        "sd14": parameters(pipelines["sd14"][0].unet, pipelines["sd14"][0].vae, first) + clip,
        "sdxl": parameters(pipelines["sdxl"][0].unet, pipelines["sdxl"][0].vae, first, second) + clip,
    }
    return {name: 4 * count / GIB for name, count in counts.items()}


def rows(load: Callable[[str], dict]) -> Iterator[Row]:
    """Command, models and size, settings, and GiB of weights and of a step."""
    weights, clips = load("weights")["gib"], load("video-cost-real")
    layer, fit, edit = (
        load("layer-edit-cost-real")["variants"]["ours, all views of the screen"]["peak_mib"],
        clips["fit"]["first"]["peak_mib"],
        clips["published"]["peak_mib"]["70"],
    )
    video = "768 x 432, ViT-B/32"
    yield "`morph --method text2live`", "512 pixels, ViT-B/32", "published", weights["layer"], layer / 1024
    yield "`video`, fit", video, "published", weights["fit"], fit / 1024
    yield "`video`, edit, 70 frames", video, "published", weights["layer"], edit / 1024
    models = "StyleGAN2 of 1024 pixels, ViT-B/32 and B/16"
    for name, settings in (
        ("ours, as published", "published"),
        ("ours, as published, a picture at a time", "published, `--chunk 1`"),
    ):
        row = load("adaptation-cost-real")["variants"][name]
        held = row["held_mib"] / 1024
        yield "`adapt`", models, settings, held, row["peak_mib"] / 1024 - held
    for shapes, result, models in (
        ("sd14", "editing-cost", "Stable Diffusion 1.4, 512 pixels"),
        ("sdxl", "editing-cost-sdxl", "Stable Diffusion XL, 1024 pixels"),
    ):
        variants = load(result)["variants"]
        for name, settings in (
            ("exact", "`--set gradient=exact`"),
            ("exact, checkpointing", "that, `--checkpointing`"),
            ("exact, tiny decoder, checkpointing", "that, `--checkpointing`, a tiny `--decoder`"),
        ):
            yield "`edit`", models, settings, weights[shapes], variants[name]["peak_gib"]


def as_markdown(load: Callable[[str], dict]) -> str:
    """The table of the page on memory."""
    head = ("command", "models, size", "settings", "weights", "a step", "together", "half")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for *told, weights, step in rows(load):
        sums = [f"{x:.1f}{'' if x > CARD else ' ✓'}" for x in (weights + step, (weights + step) / 2)]
        if not told[0].startswith("`edit`"):
            sums[1] = ""
        lines.append(f"| {' | '.join([*told, f'{weights:.1f}', f'{step:.1f}', *sums])} |")
    return "\n".join(lines)


def main() -> None:
    """Count the weights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    found = {"gib": count_weights(), "machine": machine(), "versions": versions()}
    write_json(parser.parse_args().out, found)
    print(found["gib"])


if __name__ == "__main__":
    main()
