"""A pipeline of diffusers made of loaded parts, for hosts that load parts and not pipelines."""

from collections.abc import Mapping

from torch import nn

from .families import FAMILIES, require_parts

# by the class of what denoises; U-Nets are of two kinds, which their text encoders tell apart
KINDS = {
    "SD3Transformer2DModel": "StableDiffusion3Pipeline",
    "FluxTransformer2DModel": "FluxPipeline",
}


def assemble_pipeline(parts: Mapping[str, object], *, kind: str | None = None, **settings):
    """The pipeline of diffusers that has these parts, none of which is copied.

    Args:
        parts: By their names in diffusers, such as ``vae``; those that are None are left out.
        kind: Its class, one of :data:`~geokernels.models.families.FAMILIES`; None to tell it by the parts,
            which all kinds but PixArt's two allow.
        settings: What else that class takes, such as ``force_zeros_for_empty_prompt``.

    Raises:
        TypeError: If the parts are of no kind that is known.
        ValueError: If ``kind`` is none of them, or is needed, or a part is missing.
    """
    import diffusers

    parts = {name: part for name, part in parts.items() if part is not None}
    if kind is not None and kind not in FAMILIES:
        raise ValueError(f"kind must be one of {', '.join(FAMILIES)}, got {kind!r}")
    kind = kind or _kind_of(parts)
    require_parts(kind, parts, "the parts given")
    made = getattr(diffusers, kind)
    required, optional = made._get_signature_keys(made)
    if "requires_safety_checker" in optional and "safety_checker" not in parts:
        settings = {**settings, "requires_safety_checker": False}
    taken = {name: parts.get(name) for name in required}
    taken |= {name: value for name, value in settings.items() if name in optional and value is not None}
    return made(**taken)


def _kind_of(parts: Mapping[str, object]) -> str:
    network = parts.get("unet") or parts.get("transformer")
    names = [kind.__name__ for kind in type(network).__mro__]
    if "PixArtTransformer2DModel" in names:
        raise ValueError(
            "kind must be 'PixArtAlphaPipeline' or 'PixArtSigmaPipeline' for PixArt, whose parts are alike, "
            "got None"
        )
    if "UNet2DConditionModel" in names and _sees_latents_alone(network, parts.get("vae")):
        return "StableDiffusionXLPipeline" if "text_encoder_2" in parts else "StableDiffusionPipeline"
    for name in names:
        if name in KINDS:
            return KINDS[name]
    raise TypeError(f"parts must be those of one of {', '.join(FAMILIES)}, got {_described(network)}")


def _sees_latents_alone(unet: nn.Module, vae: nn.Module | None) -> bool:
    """Whether it is shown no other picture beside what it denoises, as those that fill in or instruct are."""
    return vae is None or unet.config.in_channels == vae.config.latent_channels


def _described(network: object) -> str:
    if network is None:
        return "none that denoises"
    channels = getattr(getattr(network, "config", None), "in_channels", None)
    return f"a {type(network).__name__}" + (f" of {channels} channels" if channels else "")
