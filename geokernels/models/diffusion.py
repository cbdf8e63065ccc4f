"""Pipelines of diffusers, frozen: an embedded one, a folder's, one of the hub, or that of a single file."""

from pathlib import Path

import torch
from torch import nn

from .._modes import own_modes
from .embedded import embedded
from .families import FAMILIES, require_parts
from .pipeline_files import (
    ARGUMENTS,
    EMBEDDED,
    PipelineCalled,
    class_of,
    load_single,
    own_parts,
    read_pipeline,
    require_finite_parts,
    require_kind,
    source_of,
    variant_of,
)

TINY = "vae_tiny"  # subfolder of its small autoencoder, which the pipeline's own format does not know
# pipelines by which pictures can be edited
EDITORS = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)
# which of all have a checker that is left out, and how that is said
CHECKED = ("StableDiffusionPipeline", "StableDiffusionInstructPix2PixPipeline")
UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


@own_modes
def load_diffusion(
    name: str | Path = "world",
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    variant: str | None = None,
    config: str | Path | None = None,
    called: PipelineCalled = ARGUMENTS,
):
    """Load Stable Diffusion 1, 2, XL or 3, or FLUX, frozen, in evaluation mode, without a safety checker.

    All kinds of ``name`` are loaded by the same code. Only safetensors are read: no file can execute code.
    Stable Diffusion 3 may come without its third text encoder, T5.

    Args:
        name: ``"world"`` or ``"world-flow"``, the embedded pipelines, of Stable Diffusion's format and of
            Stable Diffusion 3's; a folder in diffusers' format; ``"organisation/model"`` on
            the hub; or one file that holds all weights. What exists here is preferred to the hub.
        dtype: Of all weights, whatever the files have.
        device: Where to.
        variant: Of a folder's files, such as ``"fp16"`` of ``*.fp16.safetensors``; None for those without,
            or for the only variant there is.
        config: Of a single file, the folder of its pipeline, which needs no weights; None for the one that
            diffusers knows for it, which is on the hub.
        called: What messages call ``name``, ``variant`` and ``config``.

    Returns:
        Diffusers' own pipeline, of the class that its folder names. No weight needs a gradient; inputs may.

    Raises:
        ImportError: If diffusers or transformers is not installed.
        FileNotFoundError: If there is no such folder, or no such model on the hub.
        ValueError: If the folder holds another kind of pipeline, or a file of it is missing, truncated, or
            not the recorded one.

    Example:
        >>> pipeline = load_diffusion("world")
        >>> pipeline.tokenizer.model_max_length
        77
    """
    how = {"variant": variant, "config": config, "called": called}
    return _load(source_of(name, called), EDITORS, dtype, device, **how)


@own_modes
def load_text_to_image(
    name: str | Path = "world",
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    variant: str | None = None,
    config: str | Path | None = None,
    called: PipelineCalled = ARGUMENTS,
):
    """Load any pipeline of :data:`FAMILIES`, as strictly as :func:`load_diffusion` loads Stable Diffusion.

    Args:
        name: See :func:`load_diffusion`.
        dtype: Of all weights, whatever the files have.
        device: Where to.
        variant: See :func:`load_diffusion`.
        config: See :func:`load_diffusion`.
        called: What messages call ``name``, ``variant`` and ``config``.

    Returns:
        Diffusers' own pipeline, of the class that its folder names.

    Raises:
        ImportError: If diffusers or transformers is not installed.
        FileNotFoundError: If there is no such folder, or no such model on the hub.
        ValueError: If the folder holds another kind of pipeline, or a file of it is missing, truncated, or
            not the recorded one.
    """
    how = {"variant": variant, "config": config, "called": called}
    return _load(source_of(name, called), tuple(FAMILIES), dtype, device, **how)


@own_modes
def load_instructed(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    variant: str | None = None,
    config: str | Path | None = None,
    called: PipelineCalled = ARGUMENTS,
):
    """Load a pipeline of InstructPix2Pix, as strictly as :func:`load_diffusion` loads Stable Diffusion.

    Arguments and errors are those of :func:`load_diffusion`; none is embedded.
    """
    kinds, how = ("StableDiffusionInstructPix2PixPipeline",), {"variant": variant, "config": config}
    return _load(source_of(name, called), kinds, dtype, device, called=called, **how)


@own_modes
def load_tiny_autoencoder(
    name: str | Path = "world",
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    called: PipelineCalled = ARGUMENTS,
):
    """Load an autoencoder that decodes a pipeline's latents several times faster, and less exactly.

    Its latents are those the U-Net sees: divide none of them by ``vae.config.scaling_factor``.

    Args:
        name: ``"world"``; a folder that holds an ``AutoencoderTiny``, itself or as ``vae_tiny``; or the hub's
            name of one, such as ``"madebyollin/taesd"`` for Stable Diffusion 1 and 2.
        dtype: Of all weights.
        device: Where to.
        called: What messages call ``name``.

    Returns:
        A frozen ``diffusers.AutoencoderTiny``.

    Raises:
        ImportError: If diffusers is not installed.
        FileNotFoundError: If there is no such folder, or no such model on the hub.
        ValueError: If a file is missing, truncated, or not the recorded one.
    """
    diffusers = _import_diffusers()
    source = source_of(name, called)
    if isinstance(source, Path) and (source / TINY).is_dir():
        source = source / TINY
    tiny = read_pipeline(
        source,
        lambda: diffusers.AutoencoderTiny.from_pretrained(
            str(source), dtype=dtype, use_safetensors=True, local_files_only=isinstance(source, Path)
        ),
    )
    require_finite_parts({"": tiny}, source)
    return tiny.requires_grad_(False).eval().to(device)


def pipeline_class(source: Path | str) -> str | None:
    """The class of the pipeline of a folder or of the hub, of which the index alone is fetched.

    None for a single file, which says of what class it is by its weights.

    Raises:
        ImportError: If the hub is asked, and diffusers or transformers is not installed.
        FileNotFoundError: If the hub has no such model, or cannot be reached.
        ValueError: If the folder has no index.
    """
    if isinstance(source, Path):
        return class_of(source) if source.is_dir() else None
    diffusers = _import_diffusers()
    return read_pipeline(source, lambda: diffusers.DiffusionPipeline.load_config(source)).get("_class_name")


def _import_diffusers():
    try:
        import diffusers
        import transformers  # noqa: F401  diffusers imports without it, and fails at the first text encoder
    except ImportError as error:
        raise ImportError(
            'diffusion models need diffusers and transformers: pip install "geokernels[diffusion]"'
        ) from error
    return diffusers


def _load(
    source: Path | str,
    kinds: tuple[str, ...],
    dtype: torch.dtype,
    device,
    *,
    variant: str | None,
    config: str | Path | None,
    called: PipelineCalled,
):
    """A frozen pipeline of one of ``kinds``."""
    diffusers = _import_diffusers()
    single = isinstance(source, Path) and source.is_file()
    if config is not None and not single:
        raise ValueError(
            f"{called.config} goes with a single file as {called.name}, got {config} with {source}"
        )
    if single:
        if variant is not None:
            raise ValueError(
                f"{called.variant} goes with a folder as {called.name}, got {variant!r} with a file"
            )
        pipeline = load_single(diffusers, source, kinds, config, called, dtype=dtype)
    else:
        kind = pipeline_class(source)
        require_kind(kind, kinds, source)
        if isinstance(source, Path):
            variant = variant_of(source, variant, called)
        options = dict(UNCHECKED) if kind in CHECKED else {}
        options |= {"dtype": dtype, "use_safetensors": True, "local_files_only": isinstance(source, Path)}
        options |= {"variant": variant} if variant else {}

        def load():
            own = own_parts(source, dtype, variant) if isinstance(source, Path) else {}
            return getattr(diffusers, kind).from_pretrained(str(source), **{**own, **options})

        pipeline = read_pipeline(source, load)
    require_kind(type(pipeline).__name__, kinds, source)
    require_parts(type(pipeline).__name__, pipeline.components, source)
    require_finite_parts(pipeline.components, source)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    pipeline.embedded = source in [embedded(name) for name in EMBEDDED.values()]
    return pipeline.to(device)
