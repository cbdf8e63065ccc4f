"""Files of StyleGAN2 generators: what is in circulation is read, what would execute code is refused."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .._files import replacing
from .._modes import own_modes
from .._sealed import serialised
from .embedded import embedded, verify
from .stylegan2 import Generator, GeneratorConfig
from .tensor_files import read_tensors, safetensors

WORLD = "world-generator.safetensors"  # the embedded model
FORMATS = (".safetensors", ".pt", ".pth", ".ckpt")


@own_modes
def load_generator(checkpoint: str | Path = "world", *, device: str | torch.device = "cpu") -> Generator:
    """Load a StyleGAN2 generator.

    Args:
        checkpoint: ``"world"`` for the embedded one; or a file that holds tensors alone: a ``.pt``,
            ``.pth`` or ``.ckpt`` with the state dict, bare or as ``"g_ema"`` beside ``"latent_avg"``, or the
            same state dict as ``.safetensors``. NVIDIA's pickles must have been converted to such a file.
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
    path = Path(checkpoint)
    if checkpoint == "world":
        path = embedded(WORLD)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must be 'world' or an existing file, found none at {path}")
    if checkpoint == "world":
        verify(path)
    content = _read(path)
    state = dict(content.get("g_ema", content))
    mean = content.get("latent_avg", state.get("latent_avg"))
    state.pop("latent_avg", None)
    generator = Generator(GeneratorConfig.of(state), name=str(checkpoint))
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
    if path.suffix == ".safetensors":
        content = safetensors().save(state | {"latent_avg": mean})
    else:
        known = {"latent_avg": mean} if mean.any() else {}
        kept = state | known if generator.bare else {"g_ema": state, "latent_avg": mean}
        content = serialised(kept).getbuffer()
    with replacing(path) as partial:
        partial.write_bytes(content)


def _read(path: Path) -> dict:
    """The content of a file of tensors; a sentence about the file if it cannot be read."""
    if path.suffix not in FORMATS:
        raise ValueError(
            f"checkpoint must end in {', '.join(FORMATS)}, got {path.name!r}; a pickle executes code when "
            "it is read: where it is trusted, convert it to a g_ema state dict and save that with torch.save"
        )
    content = read_tensors("checkpoint", path)
    if not isinstance(content.get("g_ema", {}), Mapping):
        found = type(content["g_ema"]).__name__
        raise ValueError(f"checkpoint must hold a state dict as 'g_ema', got {found} in {path.name}")
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
