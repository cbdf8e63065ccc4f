"""Weights of OpenAI's archives, open_clip's files and transformers', into a model of open_clip."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .clip_activation import activation_of, is_transformers, named, warn_of_silence
from .clip_sources import ARGUMENTS, Called, Source, import_open_clip, text_tower_of
from .tensor_files import WRAPPERS, fill, read_tensors, unwrap

# names of tensors that are no weights: those, masks, and counts
BESIDE = r"(input_resolution|context_length|vocab_size|logit_bias|(.*\.)?(attn_mask|position_ids))"

# From transformers' names to open_clip's; the rows of q, k and v follow one another in one matrix.
NAMES = (
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"text_model\.encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"vision_model\.encoder\.layers\.(\d+)\.", r"visual.transformer.resblocks.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}


def build_clip(source: Source, called: Called = ARGUMENTS) -> tuple[str, nn.Module]:
    """A model of open_clip, filled with its weights, and what to call it.

    Raises:
        ValueError: If the weights are of another model, damaged, or not finite.
    """
    open_clip = import_open_clip()
    content = read_tensors(called.weights, source.weights)
    state = unwrap(called.weights, source.weights, content, WRAPPERS)
    said = activation_of(source, state, content, called)
    quick = source.config.get("quick_gelu", False) if said is None else said
    if is_transformers(state):
        state = _of_transformers(state)
    config = {**source.config, "text_cfg": text_tower_of(source, called), "quick_gelu": quick}
    model = _module(open_clip, config)
    fill(
        model,
        _suited(open_clip, model, state),
        name=called.weights,
        file=source.weights.name,
        what=repr(source.name),
        but=BESIDE,
        asked="clip",
        hint=_fits(open_clip, state),
    )
    if said is None:
        warn_of_silence(source, called)
    preprocess = {**vars(open_clip.transform.PreprocessCfg()), "size": model.visual.image_size}
    given = {key: value for key, value in source.preprocess.items() if key in preprocess and key != "size"}
    open_clip.set_model_preprocess_cfg(model, preprocess | given)
    return named(source, quick), model


def _module(open_clip, config: dict) -> nn.Module:
    """A model as a configuration describes it, not yet filled."""
    custom = config.pop("custom_text", False) or config["text_cfg"].get("hf_model_name")
    if "multimodal_cfg" in config:
        kind = open_clip.CoCa
    else:
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    vision = {**config["vision_cfg"]}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    return kind(**{**config, "vision_cfg": vision})


def _suited(open_clip, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names and shapes of ``model``, as far as open_clip converts them itself."""
    state = open_clip.convert.convert_state_dict(model, dict(state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in expected:
            # no feature depends on them; files differ in whether they are there, and of which shape
            state[key] = state[key].reshape(expected[key].shape) if key in state else expected[key]
    return state


def _fits(open_clip, state: Mapping[str, Tensor]) -> str:
    """The end of a sentence that names the architectures of open_clip of such sizes, if there are any."""
    if not {"text_projection", "ln_final.weight", "visual.conv1.weight"} <= state.keys():
        return ""
    sizes = (tuple(state["text_projection"].shape), _vision_of(state))
    fitting = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "multimodal_cfg" in config:  # of CoCa, whose text tower has other names
            continue
        vision, text = config["vision_cfg"], config["text_cfg"]
        seen = tuple(vision.get(key) for key in ("layers", "width", "patch_size", "image_size"))
        layers = tuple(seen[0]) if isinstance(seen[0], list) else seen[0]
        if ((text.get("width"), config["embed_dim"]), (layers, *seen[1:])) == sizes:
            fitting.append(name)
    return f"; its sizes are those of {' or '.join(fitting)}" if fitting else ""


def _vision_of(state: Mapping[str, Tensor]) -> tuple:
    """Layers, width, side of a patch and of the picture of an image tower."""
    if "visual.attnpool.positional_embedding" in state:
        blocks = [{k.split(".")[2] for k in state if k.startswith(f"visual.layer{i}.")} for i in range(1, 5)]
        side = 32 * math.isqrt(len(state["visual.attnpool.positional_embedding"]))
        width = state["visual.layer1.0.conv1.weight"].shape[0]
        return tuple(len(block) for block in blocks), width, None, side
    layers = {k.split(".")[3] for k in state if k.startswith("visual.transformer.resblocks.")}
    width, _, _, patch = state["visual.conv1.weight"].shape
    side = patch * math.isqrt(len(state.get("visual.positional_embedding", ())))
    return len(layers), width, patch, side


def _of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIP of transformers by open_clip's names."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in TRANSPOSED:
            renamed[TRANSPOSED[key]] = value.T
            continue
        name = key
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        rows = re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", name)
        if rows:
            parts = [state.get(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            if all(part is not None for part in parts):
                renamed[f"{rows[1]}.attn.in_proj_{rows[2]}"] = torch.cat(parts)
        elif not re.search(r"\.self_attn\.[kv]_proj\.", name):
            renamed[name] = value
    return renamed
