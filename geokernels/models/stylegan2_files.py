"""Files of StyleGAN2 generators: what is in circulation is read, what would execute code is refused."""

from pathlib import Path

import torch

from .._files import replacing
from .._modes import own_modes
from .._sealed import serialised
from .embedded import embedded, verify
from .stylegan2 import Generator, GeneratorConfig
from .stylegan2_names import WRAPPERS, from_nvidia, mean_of, part_of, rebuilt
from .tensor_files import fill, read_tensors, safetensors, unwrap

WORLD = "world-generator.safetensors"  # the embedded model
FORMATS = (".safetensors", ".pt", ".pth", ".ckpt")


@own_modes
def load_generator(checkpoint: str | Path = "world", *, device: str | torch.device = "cpu") -> Generator:
    """Load a StyleGAN2 generator.

    Args:
        checkpoint: ``"world"`` for the embedded one; or a file of ``torch.save`` or safetensors that holds
            the state dict, bare or as ``"g_ema"``, ``"G_ema"`` or ``"g"`` beside ``"latent_avg"``, or as the
            ``decoder.*`` of an encoder (pSp, e4e); by the common names or by NVIDIA's; or NVIDIA's own
            pickle, whose tensors are read and whose code is not. Noise and filters may be left out.
        device: Where to.

    Returns:
        The generator in evaluation mode, its parameters trainable, in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is corrupt, would execute code, or holds another architecture, or weights that
            are not finite; the message names the first key that disagrees.

    Example:
        >>> model = load_generator()
        >>> model(torch.zeros(1, model.config.style_dim)).shape
        torch.Size([1, 3, 64, 64])
    """
    path = Path(checkpoint)
    if checkpoint == "world":
        path = embedded(WORLD)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must be 'world' or an existing file, found none at {path}")
    if checkpoint == "world":
        verify(path)
    content = read_tensors("checkpoint", path)
    state = from_nvidia(part_of(unwrap("checkpoint", path, content, WRAPPERS)))
    model = Generator(GeneratorConfig.of(state), name=str(checkpoint))
    mean = mean_of(content, state, model.config.style_dim, path)
    expected = model.state_dict()
    how = {"name": "checkpoint", "file": path.name, "what": "a StyleGAN2 generator", "asked": "generator"}
    fill(model, state | rebuilt(expected, state), **how)
    if mean is not None:
        model.latent_avg.copy_(mean)
    model.embedded = checkpoint == "world"
    model.bare = not any(isinstance(value, dict) for value in content.values())
    return model.eval().to(device)


def save_generator(model: Generator, path: str | Path) -> None:
    """Write a generator so that :func:`load_generator`, and others, can read it; whole or not at all.

    Args:
        model: What to write.
        path: Ends in ``.safetensors`` for the bare state dict with ``latent_avg`` in it, else in ``.pt``,
            ``.pth`` or ``.ckpt`` for ``{"g_ema": ..., "latent_avg": ...}``, or for the bare state dict where
            that is what was read.

    Raises:
        ValueError: If the ending is another.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path must end in {', '.join(FORMATS)}, got {path.name!r}")
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    mean = model.latent_avg.cpu()
    if path.suffix == ".safetensors":
        content = safetensors().save(state | {"latent_avg": mean})
    else:
        known = {"latent_avg": mean} if mean.any() else {}
        kept = state | known if model.bare else {"g_ema": state, "latent_avg": mean}
        content = serialised(kept).getbuffer()
    with replacing(path) as partial:
        partial.write_bytes(content)
