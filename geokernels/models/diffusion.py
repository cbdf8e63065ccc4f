"""Stable Diffusion pipelines of diffusers, frozen: the embedded one, a folder's, or one of the hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .._checks import reason_of
from .._files import read_json
from .._modes import own_modes
from .embedded import embedded, verify
from .families import FAMILIES

WORLD = "world-diffusion"  # folder of the embedded pipeline
TINY = "vae_tiny"  # subfolder of its small autoencoder, which the pipeline's own format does not know
HUB = re.compile(r"[\w.-]+/[\w.-]+")


@own_modes
def load_diffusion(
    name: str | Path = "world", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
):
    """Load a Stable Diffusion pipeline, frozen, in evaluation mode, and without a safety checker.

    All kinds of ``name`` are loaded by the same code. Only safetensors are read: no file can execute code.

    Args:
        name: ``"world"``, the embedded pipeline; a folder in diffusers' format; or ``"organisation/model"``
            on the hub. A folder is preferred to the hub.
        dtype: Of all weights, whatever the files have.
        device: Where to.

    Returns:
        A ``diffusers.StableDiffusionPipeline``. No weight needs a gradient; inputs may.

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
    unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _load(name, ("StableDiffusionPipeline",), dtype, device, unchecked)


@own_modes
def load_text_to_image(
    name: str | Path = "world", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
):
    """Load any pipeline of :data:`FAMILIES`, as strictly as :func:`load_diffusion` loads Stable Diffusion.

    Args:
        name: See :func:`load_diffusion`.
        dtype: Of all weights, whatever the files have.
        device: Where to.

    Returns:
        Diffusers' own pipeline, of the class that its folder names.

    Raises:
        ImportError: If diffusers or transformers is not installed.
        FileNotFoundError: If there is no such folder, or no such model on the hub.
        ValueError: If the folder holds another kind of pipeline, or a file of it is missing, truncated, or
            not the recorded one.
    """
    source = _source(name)
    if isinstance(source, Path) and _class_of(source) == "StableDiffusionPipeline":
        return load_diffusion(name, dtype=dtype, device=device)
    return _load(name, tuple(FAMILIES), dtype, device, {})


@own_modes
def load_instructed(
    name: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
):
    """Load a pipeline of InstructPix2Pix, as strictly as :func:`load_diffusion` loads Stable Diffusion.

    Arguments and errors are those of :func:`load_diffusion`; none is embedded.
    """
    unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _load(name, ("StableDiffusionInstructPix2PixPipeline",), dtype, device, unchecked)


@own_modes
def load_tiny_autoencoder(
    name: str | Path = "world", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
):
    """Load an autoencoder that decodes a pipeline's latents several times faster, and less exactly.

    Its latents are those the U-Net sees: divide none of them by ``vae.config.scaling_factor``.

    Args:
        name: ``"world"``; a folder that holds an ``AutoencoderTiny``, itself or as ``vae_tiny``; or the hub's
            name of one, such as ``"madebyollin/taesd"`` for Stable Diffusion 1 and 2.
        dtype: Of all weights.
        device: Where to.

    Returns:
        A frozen ``diffusers.AutoencoderTiny``.

    Raises:
        ImportError: If diffusers is not installed.
        FileNotFoundError: If there is no such folder, or no such model on the hub.
        ValueError: If a file is missing, truncated, or not the recorded one.
    """
    diffusers = _import_diffusers()
    source = _source(name)
    if isinstance(source, Path) and (source / TINY).is_dir():
        source = source / TINY
    tiny = _read(
        source,
        lambda: diffusers.AutoencoderTiny.from_pretrained(
            str(source), dtype=dtype, use_safetensors=True, local_files_only=isinstance(source, Path)
        ),
    )
    return tiny.requires_grad_(False).eval().to(device)


def _import_diffusers():
    try:
        import diffusers
        import transformers  # noqa: F401  diffusers imports without it, and fails at the first text encoder
    except ImportError as error:
        raise ImportError(
            'diffusion models need diffusers and transformers: pip install "geokernels[diffusion]"'
        ) from error
    return diffusers


def _source(name: str | Path) -> Path | str:
    """The folder that ``name`` means, or the hub's name it is."""
    if name == "world":
        folder = embedded(WORLD)
        verify(folder)
        return folder
    if Path(name).is_dir():
        return Path(name).resolve()
    if isinstance(name, str) and HUB.fullmatch(name) and not name.startswith("."):
        return name
    raise FileNotFoundError(
        f"name must be 'world', an existing folder or 'organisation/model' of the hub, found no folder {name}"
    )


def _load(name: str | Path, kinds: tuple[str, ...], dtype: torch.dtype, device, options: dict):
    """A frozen pipeline of one of ``kinds``; one of the hub is fetched as the first, if there is but one."""
    diffusers = _import_diffusers()
    source = _source(name)
    if isinstance(source, Path):
        _require_pipeline(source, kinds)
    kind = getattr(diffusers, kinds[0] if len(kinds) == 1 else "DiffusionPipeline")
    pipeline = _read(
        source,
        lambda: kind.from_pretrained(
            str(source),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=isinstance(source, Path),
            **options,
        ),
    )
    if type(pipeline).__name__ not in kinds:
        raise ValueError(f"a pipeline must be a {_or(kinds)}, got {type(pipeline).__name__} in {source}")
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    return pipeline.to(device)


def _class_of(folder: Path) -> str | None:
    """What ``folder`` says it holds."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"a pipeline's folder must hold model_index.json, found none in {folder}")
    return read_json(index).get("_class_name")


def _require_pipeline(folder: Path, kinds: tuple[str, ...]) -> None:
    found = _class_of(folder)
    if found not in kinds:
        raise ValueError(f"a pipeline must be a {_or(kinds)}, got {found} in {folder}")


def _or(kinds: tuple[str, ...]) -> str:
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


@contextmanager
def _without_bars(where: bool) -> Iterator[None]:
    """Leave out the libraries' progress bars, for what is read before one could be looked at."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [part for part in (of_diffusers, of_transformers) if where and part.is_progress_bar_enabled()]
    for part in shown:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in shown:
            part.enable_progress_bar()


def _read(source: Path | str, load):
    """What ``load`` returns; a sentence about ``source`` if it fails."""
    try:
        with _without_bars(where=isinstance(source, Path) and source.is_relative_to(embedded(WORLD))):
            return load()
    except Exception as error:
        if isinstance(source, str):
            raise FileNotFoundError(
                f"{source!r} could not be fetched from the hub, nor is it a folder ({reason_of(error)})"
            ) from error
        raise ValueError(
            f"the model in {source} could not be read ({reason_of(error)}); "
            "every weight must be whole, fit its configuration, and be saved as safetensors"
        ) from error
