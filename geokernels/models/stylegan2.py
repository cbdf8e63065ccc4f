"""StyleGAN2 generators, read from the common PyTorch checkpoints and taken apart layer by layer.

The architecture of Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), with RGB
skips, in plain PyTorch: nothing is compiled at run time. Parameters carry the names of the ``g_ema`` state
dicts in circulation, and every size is read off their shapes.

Row ``i`` of a W+ code styles one convolution, from coarse to fine; a row that comes after a resolution's last
convolution also styles that resolution's RGB output.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .._checks import require_choice, require_positive
from .checkpoint_kinds import instead
from .stylegan2_layers import LEARNING_RATE, Input, MappingLayer, PixelNorm, StyledConv, ToRGB

FINEST = {"coarse": 8, "middle": 32, "fine": math.inf}  # largest resolution of each group, as in the paper


@dataclass(frozen=True)
class GeneratorConfig:
    """The sizes of a generator.

    Attributes:
        channels: Of the features at 4, 8, 16, ... pixels; their number fixes the side of the picture.
        style_dim: Of z and of w.
        mapping_layers: From z to w.
    """

    channels: tuple[int, ...]
    style_dim: int = 512
    mapping_layers: int = 8

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return 4 << (len(self.channels) - 1)

    @property
    def codes(self) -> int:
        """Rows of a W+ code."""
        return 2 * len(self.channels)

    @classmethod
    def standard(cls, size: int, *, multiplier: int = 2) -> "GeneratorConfig":
        """The published sizes: 512 channels up to 32 pixels, then halving from ``256 * multiplier``.

        Args:
            size: Side of the picture, a power of two from 8 to 1024.
            multiplier: 2 for the published networks, 1 for their half-width form.
        """
        if size not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ValueError(f"size must be a power of two from 8 to 1024, got {size}")
        sides = [4 << i for i in range(size.bit_length() - 2)]
        return cls(tuple(512 if side <= 32 else 16384 // side * multiplier for side in sides))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "GeneratorConfig":
        """Read the sizes off a ``g_ema`` state dict.

        Raises:
            ValueError: If it is no StyleGAN2 generator; names the first key that disagrees.
        """
        for key, ndim in (("style.1.weight", 2), ("input.input", 4), ("conv1.conv.weight", 5)):
            if key not in state:
                kind = instead(state, "generator")
                raise ValueError(f"checkpoint must be a StyleGAN2 generator, but it lacks {key!r}{kind}")
            if state[key].ndim != ndim:
                shape = tuple(state[key].shape)
                raise ValueError(f"checkpoint must have {key!r} of {ndim} dimensions, got shape {shape}")
        layers = convolutions = 0
        while f"style.{layers + 1}.weight" in state:
            layers += 1
        while f"convs.{2 * convolutions}.conv.weight" in state:
            convolutions += 1
        wide = [state["input.input"].shape[1]]
        wide += [state[f"convs.{2 * i}.conv.weight"].shape[1] for i in range(convolutions)]
        return cls(tuple(wide), state["style.1.weight"].shape[1], layers)


class Generator(nn.Module):
    """A StyleGAN2 generator: z to w by :meth:`mapping`, w to pictures by :meth:`synthesis`.

    Attributes:
        config: Its sizes.
        name: What was loaded.
        bare: Whether its file held the state dict alone, not as ``"g_ema"`` among others.
        embedded: Whether it is the one that the package carries.
        latent_avg: Mean of w, ``(style_dim,)``; zero until it is loaded or set from :meth:`mean_latent`.
    """

    def __init__(self, config: GeneratorConfig, *, name: str = "untrained") -> None:
        super().__init__()
        if len(config.channels) < 2:
            raise ValueError(f"channels must be of at least two resolutions, got {config.channels}")
        self.config, self.name, self.bare, self.embedded = config, name, False, False
        dim, first = config.style_dim, config.channels[0]
        layers = [MappingLayer(dim, dim, rate=LEARNING_RATE) for _ in range(config.mapping_layers)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = Input(first)
        self.conv1 = StyledConv(first, first, dim)
        self.to_rgb1 = ToRGB(first, dim, first=True)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for inputs, outputs in pairwise(config.channels):
            self.convs.append(StyledConv(inputs, outputs, dim, up=True))
            self.convs.append(StyledConv(outputs, outputs, dim))
            self.to_rgbs.append(ToRGB(outputs, dim))
        for i in range(config.codes - 1):
            side = self.resolution(i)
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, side, side, dtype=torch.float32))
        self.register_buffer("latent_avg", torch.zeros(dim, dtype=torch.float32), persistent=False)

    def resolution(self, code: int) -> int:
        """Side of the features that row ``code`` of W+ shapes; the last row shapes the RGB output alone."""
        return 4 << (min(code, self.config.codes - 2) + 1) // 2

    def codes(self, group: str = "all") -> range:
        """Rows of W+ that shape ``"coarse"`` (to 8 pixels), ``"middle"`` (to 32), ``"fine"`` or ``"all"``."""
        require_choice("group", group, ("all", *FINEST))
        every = range(self.config.codes)
        if group == "all":
            return every
        least = {"coarse": 0, "middle": FINEST["coarse"], "fine": FINEST["middle"]}[group]
        inside = [i for i in every if least < self.resolution(i) <= FINEST[group]]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def layer(self, code: int) -> StyledConv | ToRGB:
        """The convolution that row ``code`` of W+ styles; of the last row, the RGB output.

        To train chosen layers alone: ``model.requires_grad_(False)``, then
        ``model.layer(i).requires_grad_()`` for each.
        """
        if not 0 <= code < self.config.codes:
            raise ValueError(f"code must be from 0 to {self.config.codes - 1}, got {code}")
        if code == self.config.codes - 1:
            return self.to_rgbs[-1]
        return self.conv1 if code == 0 else self.convs[code - 1]

    def mapping(self, z: Tensor) -> Tensor:
        """Style codes w, ``(B, style_dim)``, of Gaussian ``z``, ``(B, style_dim)``.

        Raises:
            ValueError: If the shape is another.
        """
        if z.ndim != 2 or z.shape[1] != self.config.style_dim:
            raise ValueError(f"z must have shape (B, {self.config.style_dim}), got {tuple(z.shape)}")
        return self.style(z)

    def synthesis(
        self,
        w: Tensor,
        *,
        noise: str | Sequence[Tensor] = "fixed",
        generator: torch.Generator | None = None,
        size: int | None = None,
    ) -> Tensor:
        """Draw the pictures of style codes.

        Args:
            w: ``(B, style_dim)``, or a code for each layer as W+, ``(B, config.codes, style_dim)``.
            noise: ``"fixed"`` for that of the checkpoint, ``"random"``, ``"none"``, or one tensor for each
                convolution, broadcastable to ``(B, 1, side, side)``.
            generator: Source of random numbers of random noise.
            size: Stop early, at the RGB of this side; None for the whole picture.

        Returns:
            ``(B, 3, size, size)`` float32: black is 0, white is 1, and the network may overshoot both.

        Gradients:
            To ``w``, to the parameters and to given noise, of any order.

        Raises:
            ValueError: If a shape or the kind of noise is wrong.
        """
        w = self._expand(w)
        sides = [4 << i for i in range(len(self.config.channels))]
        if size is not None and size not in sides:
            raise ValueError(f"size must be one of {', '.join(map(str, sides))}, got {size}")
        noises = self._noises(noise, w, generator)
        x = self.input.input.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv1(x, w[:, 0], noises[0])
        rgb = self.to_rgb1(x, w[:, 1], None)
        for i, side in enumerate(sides[1:]):
            if size is not None and side > size:
                break
            x = self.convs[2 * i](x, w[:, 2 * i + 1], noises[2 * i + 1])
            x = self.convs[2 * i + 1](x, w[:, 2 * i + 2], noises[2 * i + 2])
            rgb = self.to_rgbs[i](x, w[:, 2 * i + 3], rgb)
        return (rgb + 1) / 2

    def fresh_noise(self, seeds: Sequence[int]) -> list[Tensor]:
        """Noise for :meth:`synthesis`, one ``(len(seeds), 1, side, side)`` for each convolution.

        Each picture's has a seed of its own, so that it does not depend on which pictures are drawn together.
        """
        sides = [self.resolution(i) for i in range(self.config.codes - 1)]
        pictures = []
        for seed in seeds:
            chance = torch.Generator().manual_seed(seed)
            pictures.append([torch.randn(1, s, s, generator=chance, dtype=torch.float32) for s in sides])
        return [torch.stack(layer).to(self.latent_avg) for layer in zip(*pictures)]

    def forward(
        self,
        z: Tensor,
        *,
        truncation: float = 1.0,
        noise: str | Sequence[Tensor] = "fixed",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Pictures, as of :meth:`synthesis`, of Gaussian ``z``, ``(B, style_dim)``."""
        w = self.truncate(self.mapping(z), truncation)
        return self.synthesis(w, noise=noise, generator=generator)

    @torch.no_grad()
    def mean_latent(self, n: int = 4096, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean w of ``n`` random z, ``(style_dim,)``."""
        require_positive("n", n)
        z = torch.randn(n, self.config.style_dim, generator=generator, dtype=torch.float32)
        return self.mapping(z.to(self.latent_avg)).mean(0)

    def truncate(self, w: Tensor, truncation: float, *, codes: Sequence[int] | None = None) -> Tensor:
        """Pull ``w`` (or W+) towards ``latent_avg``: 1 leaves it, 0 is the mean; of ``codes`` alone if given.

        Raises:
            ValueError: If the mean is not known.
        """
        if truncation == 1:
            return w
        if not self.latent_avg.any():
            raise ValueError("truncation needs latent_avg, which is zero; set it from mean_latent() first")
        if codes is None:
            return self.latent_avg.lerp(w, truncation)
        w = self._expand(w)
        return self.mix(w, self.latent_avg.lerp(w, truncation), codes)

    def mix(self, w: Tensor, other: Tensor, codes: Sequence[int]) -> Tensor:
        """W+ of ``w`` (or W+) but for the rows ``codes``, which are those of ``other``: style mixing.

        Example:
            >>> model = Generator(GeneratorConfig(channels=(4, 4, 4), style_dim=2, mapping_layers=1))
            >>> model.mix(torch.zeros(1, 2), torch.ones(1, 2), model.codes("coarse"))[0, :, 0]
            tensor([1., 1., 1., 0., 0., 0.])
        """
        return torch.where(self._rows(codes), self._expand(other), self._expand(w))

    def _rows(self, codes: Sequence[int]) -> Tensor:
        """Which rows of W+ are among ``codes``, ``(config.codes, 1)``."""
        chosen = torch.zeros(self.config.codes, 1, dtype=torch.bool, device=self.latent_avg.device)
        chosen[list(codes)] = True
        return chosen

    def _expand(self, w: Tensor) -> Tensor:
        codes, dim = self.config.codes, self.config.style_dim
        if w.ndim == 2 and w.shape[1] == dim:
            return w[:, None].expand(-1, codes, -1)
        if w.ndim == 3 and w.shape[1:] == (codes, dim):
            return w
        raise ValueError(f"w must have shape (B, {dim}) or (B, {codes}, {dim}), got {tuple(w.shape)}")

    def _noises(self, noise, w: Tensor, generator: torch.Generator | None) -> Sequence[Tensor | None]:
        count = self.config.codes - 1
        if isinstance(noise, str):
            require_choice("noise", noise, ("fixed", "random", "none"))
            if noise == "none":
                return [None] * count
            if noise == "fixed":
                return list(self.noises.buffers())
            shapes = [(len(w), 1, self.resolution(i), self.resolution(i)) for i in range(count)]
            return [torch.randn(s, generator=generator, dtype=torch.float32).to(w) for s in shapes]
        if len(noise) != count:
            raise ValueError(f"noise must hold {count} tensors, one for each convolution, got {len(noise)}")
        return noise
