"""The tiny Stable Diffusion of :mod:`.pipelines` by the names of the single files that are in circulation."""

import re

import torch

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
RESNET |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
# from diffusers' names to those of the single files, for a U-Net of two levels with one layer each
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    **{f"up_blocks.{i}.resnets.{j}": f"output_blocks.{2 * i + j}.0" for i in (0, 1) for j in (0, 1)},
    **{f"up_blocks.0.attentions.{j}": f"output_blocks.{j}.1" for j in (0, 1)},
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _of_unet(key: str) -> str:
    theirs = next(UNET[ours] + key.removeprefix(ours) for ours in UNET if key.startswith(f"{ours}."))
    if ".resnets." in key:
        for ours, name in RESNET.items():
            theirs = theirs.replace(f".{ours}.", f".{name}.")
    return f"model.diffusion_model.{theirs}"


def _of_vae(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{2 - int(match[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{2 - int(match[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", key)
    if "mid_block.attentions.0" in key:
        key = key.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, name in ATTENTION.items():
            key = key.replace(f".{ours}.", f".{name}.")
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return f"first_stage_model.{key}"


def single_file(pipeline) -> dict[str, torch.Tensor]:
    """All weights of a pipeline by the names of a single file."""
    weights = {_of_unet(key): value for key, value in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        # attention's matrices were convolutions
        matrix = "attentions" in key and value.dim() == 2
        weights[_of_vae(key)] = value[:, :, None, None] if matrix else value
    for key, value in pipeline.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in weights.items()}
