"""Names of StyleGAN2 generators in circulation, brought to those of the ``g_ema`` state dicts.

NVIDIA's PyTorch code calls the same weights by another scheme, ``mapping.*`` and ``synthesis.b{side}.*``; the
values are the same, some with a dimension less. Encoders (pSp, e4e) keep a generator as ``decoder.*``.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

# under which trainings keep a generator, averaged weights before those they are an average of
WRAPPERS = ("g_ema", "G_ema", "params_ema", "state_dict", "model", "generator", "g", "G", "params")
PARTS = ("g_ema.", "G_ema.", "decoder.", "generator.", "g.", "G.")  # before the names of a part of a model
REBUILT = r"(noises\.noise_\d+|convs\.\d+\.conv\.blur\.kernel|to_rgbs\.\d+\.upsample\.kernel)"

# From NVIDIA's names within a convolution to ours; of the first two our values have a dimension more.
WITHIN = {
    "weight": "conv.weight",
    "noise_strength": "noise.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "bias": "activate.bias",
}
WIDENED = ("weight", "noise_strength")


def part_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The generator of a larger model; all of ``state`` where it is none."""
    for prefix in PARTS:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            beside = {key: state[key] for key in ("latent_avg",) if key in state}
            return beside | part
    return dict(state)


def from_nvidia(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A generator of NVIDIA's code by our names; unchanged where it is by ours already."""
    if not any(key.startswith("synthesis.b") for key in state):
        return dict(state)
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        layer = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key)
        block = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", key)
        if layer:
            named[f"style.{int(layer[1]) + 1}.{layer[2]}"] = value
        elif key == "mapping.w_avg":
            named["latent_avg"] = value
        elif key == "synthesis.b4.const":
            named["input.input"] = value[None]
        elif block:
            named.update(_of_block(int(block[1]), block[2], block[3], value))
        elif not key.endswith("resample_filter"):
            named[key] = value  # which is no StyleGAN2 of ours, and is refused by name
    return named


def _of_block(side: int, layer: str, name: str, value: Tensor) -> dict[str, Tensor]:
    """A value of one layer of the block of a resolution."""
    level = side.bit_length() - 3  # 0 at four pixels
    if layer == "torgb":
        ours = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        if name == "bias":
            return {f"{ours}.bias": value.view(1, -1, 1, 1)}
    else:
        index = 2 * level - 2 + int(layer[-1])
        ours = "conv1" if level == 0 else f"convs.{index}"
        if name == "noise_const":
            return {f"noises.noise_{index + 1}": value[None, None]}
    if name == "resample_filter":
        return {}
    return {f"{ours}.{WITHIN.get(name, name)}": value[None] if name in WIDENED else value}


def mean_of(content: Mapping, state: dict[str, Tensor], dim: int, path: Path) -> Tensor | None:
    """The mean w beside or among the tensors of a file, ``(dim,)``; it is taken out of ``state``.

    Raises:
        ValueError: If it is not of ``dim`` finite numbers, or differs from layer to layer.
    """
    mean = content.get("latent_avg")
    own = state.pop("latent_avg", None)
    mean = own if mean is None else mean
    if mean is None:
        return None
    try:
        if isinstance(mean, (list, tuple)):
            mean = torch.stack([torch.as_tensor(part, dtype=torch.float32) for part in mean])
        rows = mean.float().view(-1, dim)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        size = mean.numel() if isinstance(mean, Tensor) else type(mean).__name__
        raise ValueError(f"latent_avg must have {dim} numbers, got {size} in {path.name}") from None
    if not torch.isfinite(rows).all():
        raise ValueError(f"latent_avg must be finite, got NaN or infinity in {path.name}")
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise ValueError(
            f"latent_avg must be one mean of {dim} numbers for all layers, got {len(rows)} that differ in "
            f"{path.name}"
        )
    return rows[0]


def rebuilt(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file may leave out: noise drawn anew, the same every time, and the filters, which are fixed."""
    lacking = [key for key in expected if key not in state and re.fullmatch(REBUILT, key)]
    noises = [key for key in expected if key.startswith("noises.")]
    if set(noises) & set(lacking) not in (set(), set(noises)):
        return {}  # some of the noise is there: what is missing was lost
    chance = torch.Generator().manual_seed(0)
    drawn = {key: torch.randn(expected[key].shape, generator=chance, dtype=torch.float32) for key in noises}
    return {key: drawn.get(key, expected[key]) for key in lacking}
