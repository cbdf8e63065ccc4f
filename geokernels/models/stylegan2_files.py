"""Files of StyleGAN2 generators: what is in circulation is read, what would execute code is refused."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .embedded import embedded, verify
from .stylegan2 import Generator, GeneratorConfig

WORLD = "world-generator.safetensors"  # the embedded model
FORMATS = (".safetensors", ".pt", ".pth", ".ckpt")


def load_generator(source: str | Path = "world", *, device: str | torch.device = "cpu") -> Generator:
    """Load a StyleGAN2 generator.

    Args:
        source: ``"world"`` for the embedded one; or a file that holds tensors alone: a ``.pt``, ``.pth`` or
            ``.ckpt`` with the state dict, bare or as ``"g_ema"`` beside ``"latent_avg"``, or the same state
            dict as ``.safetensors``. NVIDIA's pickles must have been converted to such a file.
        device: Where to.

    Returns:
        The generator in evaluation mode, its parameters trainable, in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is corrupt, would execute code, or holds another architecture; the message
            names the first key that disagrees.

    Example:
        >>> generator = load_generator()
        >>> generator(torch.zeros(1, generator.config.style_dim)).shape
        torch.Size([1, 3, 64, 64])
    """
    path = Path(source)
    if source == "world":
        path = embedded(WORLD)
    if not path.is_file():
        raise FileNotFoundError(f"source must be 'world' or an existing file, found none at {path}")
    if source == "world":
        verify(path)
    content = _read(path)
    state = dict(content.get("g_ema", content))
    mean = content.get("latent_avg", state.get("latent_avg"))
    state.pop("latent_avg", None)
    generator = Generator(GeneratorConfig.of(state), name=str(source))
    _fit(generator, state, path.name)
    if mean is not None:
        if mean.numel() != generator.config.style_dim:
            raise ValueError(
                f"latent_avg must have {generator.config.style_dim} numbers, "
                f"got {mean.numel()} in {path.name}"
            )
        generator.latent_avg.copy_(mean.flatten())
    generator.bare = "g_ema" not in content
    return generator.eval().to(device)


def save_generator(generator: Generator, path: str | Path) -> None:
    """Write a generator so that :func:`load_generator`, and others, can read it; whole or not at all.

    Args:
        generator: What to write.
        path: Ends in ``.safetensors`` for the bare state dict with ``latent_avg`` in it, else in ``.pt``,
            ``.pth`` or ``.ckpt`` for ``{"g_ema": ..., "latent_avg": ...}``, or for the bare state dict where
            that is what was read.

    Raises:
        ValueError: If the ending is another.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path must end in {', '.join(FORMATS)}, got {path.name!r}")
    state = {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()}
    mean = generator.latent_avg.cpu()
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".safetensors":
        _safetensors().save_file(state | {"latent_avg": mean}, partial)
    else:
        known = {"latent_avg": mean} if mean.any() else {}
        torch.save(state | known if generator.bare else {"g_ema": state, "latent_avg": mean}, partial)
    os.replace(partial, path)


def _safetensors():
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError('.safetensors files need safetensors: pip install "geokernels[morph]"') from error
    return safetensors.torch


def _read(path: Path) -> dict:
    """The content of a file of tensors; a sentence about the file if it cannot be read."""
    if path.suffix not in FORMATS:
        raise ValueError(
            f"source must end in {', '.join(FORMATS)}, got {path.name!r}; a pickle executes code when it is "
            "read: where it is trusted, convert it to a g_ema state dict and save that with torch.save"
        )
    try:
        if path.suffix == ".safetensors":
            return _safetensors().load_file(path)
        # training scripts leave their arguments in the checkpoint; a namespace is data alone
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"source must be a whole file of tensors alone, but {path.name} could not be read ({reason}); "
            "fetch it again, or, where it is trusted, save its g_ema state dict with "
            "safetensors.torch.save_file"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("g_ema", {}), Mapping):
        raise ValueError(f"source must hold a state dict, got {type(content).__name__} in {path.name}")
    return content


def _fit(generator: Generator, state: Mapping[str, Tensor], file: str) -> None:
    """Load ``state``, strictly; name the first key that disagrees."""
    expected = generator.state_dict()
    for key, value in expected.items():
        found = state.get(key)
        if not isinstance(found, Tensor) or found.shape != value.shape:
            finding = "lacks" if key not in state else f"has {tuple(getattr(found, 'shape', ()))} for"
            raise ValueError(
                f"checkpoint must have {key!r} of shape {tuple(value.shape)} to go with its other keys, "
                f"but {file} {finding} it"
            )
    surplus = next((key for key in state if key not in expected), None)
    if surplus is not None:
        raise ValueError(f"checkpoint must be a StyleGAN2 generator, which has no {surplus!r}, as {file} has")
    generator.load_state_dict(state)
