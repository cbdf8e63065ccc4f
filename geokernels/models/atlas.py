"""Layered atlases of a clip: two pictures, and the maps by which every frame looks at them."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._checks import reason_of, require_positive, settle, whole
from .._files import replacing
from .._modes import own_modes

KIND, ENTRY = "layered atlas 2", "geokernels"  # of files
CHUNK = 65_536  # points at a time, where no gradient is asked for


@dataclass(frozen=True)
class AtlasShape:
    """Sizes of the networks of an atlas, and of its plane.

    Attributes:
        width: Of every hidden layer.
        map_layers: Hidden layers of the foreground's map.
        ground_layers: Hidden layers of the background's map; None for as many.
        layers: Hidden layers of the opacity and of the colours.
        skips: Layers of the colours' networks that are given the encoding again beside what comes from the
            layer before; the first layer has number 0, the output has number ``layers``.
        octaves: Of places in the atlas, in the colours' and the opacity's encoding: each has half the
            wavelength of the one before.
        wavelength: Of the first of them, in units of the plane.
        plain_octaves: Of positions in the frame and of time, in the opacity's; wavelengths 2, 1, ...
        scale: How long half the longest side of a frame is in the plane.
    """

    width: int = 64
    map_layers: int = 2
    ground_layers: int | None = None
    layers: int = 3
    skips: tuple[int, ...] = ()
    octaves: int = 6
    wavelength: float = 2.0
    plain_octaves: int = 3
    scale: float = 1.0

    def __post_init__(self):
        settle(self)
        object.__setattr__(self, "skips", tuple(whole("skips", number) for number in self.skips))
        for name, value in asdict(self).items():
            if name != "skips" and value is not None:
                require_positive(name, value)
        if not all(0 < number <= self.layers for number in self.skips):
            raise ValueError(
                f"skips must be numbers of layers after the first, 1 to {self.layers}, got {self.skips}"
            )


class Points(NamedTuple):
    """Points of frames, ``N`` of them."""

    frame: Tensor  # (N,) int64
    place: Tensor  # (N, 2), in the frame's plane: 0 in the middle, 1 for half the longest side


class LayerSample(NamedTuple):
    """What an atlas says of ``N`` points; the foreground comes first."""

    places: Tensor  # (2, N, 2), in each layer's atlas
    opacity: Tensor  # (N, 1), of the foreground
    colours: Tensor  # (2, N, 3), or of the layers that were asked for

    def mixed(self) -> Tensor:
        """The colours that are seen, ``(N, 3)``."""
        return self.colours[1] + self.opacity * (self.colours[0] - self.colours[1])


class LayeredAtlas(nn.Module):
    """Maps, opacity and colours as networks of coordinates.

    A map is the affine motion of its layer, scaled, plus what a network of (x, y, t) adds to it, which starts
    at 0.
    The opacity is a network of (x, y, t) and of the place in the foreground's atlas, where an outline stands
    still.

    Args:
        motion: Affine maps of the layers from each frame to the atlas's plane, ``(2, T, 2, 3)``.
        size: Height and width of a frame.
        shape: Of the networks.
        generator: Source of random numbers.

    Attributes:
        clip: Checksum of the frames that it was fitted to; empty before.
        bounds: Part of each atlas that is seen: left, top, right and bottom, ``(2, 4)``.
    """

    def __init__(
        self,
        motion: Tensor,
        size: tuple[int, int],
        shape: AtlasShape = AtlasShape(),
        *,
        generator: torch.Generator,
    ):
        super().__init__()
        self.size, self.shape, self.clip = tuple(size), shape, ""
        self.register_buffer("motion", motion.float())
        self.register_buffer(
            "bounds", torch.tensor([[-1.0, -1.0, 1.0, 1.0]], dtype=torch.float32).repeat(2, 1)
        )
        width, seen = shape.width, 2 + 4 * shape.octaves
        depths = (shape.map_layers, shape.ground_layers or shape.map_layers)
        self.maps = nn.ModuleList(_network(3, 2, width, layers) for layers in depths)
        self.cover = _network(seen + 3 + 6 * shape.plain_octaves, 1, width, shape.layers)
        self.paints = nn.ModuleList(_network(seen, 3, width, shape.layers, shape.skips) for _ in range(2))
        _initialise(self, generator)

    @property
    def frames(self) -> int:
        """Of the clip."""
        return self.motion.shape[1]

    def times(self, frame: Tensor) -> Tensor:
        """From -1 at the first to 1 at the last frame, ``(N, 1)``."""
        last = max(self.frames - 1, 1)
        # a clip of one frame is at 0
        return (2 * frame[:, None] - (self.frames - 1)).to(self.motion.dtype) / last

    def place(self, layer: int, points: Points) -> Tensor:
        """Where the atlas of ``layer`` shows ``points``, ``(N, 2)``."""
        motion = self.motion[layer][points.frame]
        affine = torch.einsum("nij,nj->ni", motion[..., :2], points.place) + motion[..., 2]
        seen = torch.cat([points.place, self.times(points.frame)], 1)
        return self.shape.scale * affine + self.maps[layer](seen)

    def opacity(self, points: Points, place: Tensor) -> Tensor:
        """How much the foreground covers, ``(N, 1)`` in (0, 1); ``place`` is where its atlas shows them."""
        plain = torch.cat([points.place, self.times(points.frame)], 1)
        seen = [self._encoded(place), encode(plain, self.shape.plain_octaves)]
        return self.cover(torch.cat(seen, 1)).sigmoid()

    def colour(self, layer: int, place: Tensor) -> Tensor:
        """What the atlas of ``layer`` shows at ``place`` (N, 2): ``(N, 3)`` in (0, 1)."""
        return self.paints[layer](self._encoded(place)).sigmoid()

    def _encoded(self, place: Tensor) -> Tensor:
        return encode(place, self.shape.octaves, longest=self.shape.wavelength)

    def forward(self, points: Points, colours: Sequence[int] = (0, 1)) -> LayerSample:
        """Everything about ``points``, with the colours of these layers."""
        places = [self.place(layer, points) for layer in range(2)]
        seen = [self.colour(layer, places[layer]) for layer in colours]
        shades = torch.stack(seen) if seen else places[0].new_empty(0, len(points.place), 3)
        return LayerSample(torch.stack(places), self.opacity(points, places[0]), shades)

    def points(self, frame: int, *, stride: int = 1) -> Points:
        """Every pixel of a frame, row by row, or of every ``stride``-th row and column."""
        H, W = self.size
        device, longest = self.motion.device, max(H, W)
        y = (2 * torch.arange(0, H, stride, device=device, dtype=torch.float32) + 1 - H) / longest
        x = (2 * torch.arange(0, W, stride, device=device, dtype=torch.float32) + 1 - W) / longest
        place = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        return Points(torch.full((len(place),), frame, device=device), place)

    @torch.no_grad()
    def look(self, frame: int, *, colours: Sequence[int] = (0, 1)) -> LayerSample:
        """Everything about a whole frame, a part at a time; its pixels row by row.

        Args:
            frame: Its number.
            colours: The layers whose colours are asked for; each of them is a network to run.
        """
        points = self.points(frame)
        parts = map(Points, points.frame.split(CHUNK), points.place.split(CHUNK))
        places, opacity, shades = zip(*(self(part, colours) for part in parts))
        return LayerSample(torch.cat(places, 1), torch.cat(opacity), torch.cat(shades, 1))

    def frame(self, index: int) -> Tensor:
        """A frame as the atlas has it, ``(3, H, W)``."""
        return self.look(index).mixed().T.reshape(3, *self.size)

    def require_clip(self, checksum: str) -> None:
        """Refuse a clip that the atlas was not fitted to.

        Raises:
            ValueError: If the checksums differ.
        """
        if self.clip != checksum:
            raise ValueError(
                f"the atlas must be of this clip, whose checksum is {checksum[:12]}..., "
                f"it was fitted to one with {self.clip[:12] or 'none'}..."
            )


def encode(x: Tensor, octaves: int, *, longest: float = 2.0) -> Tensor:
    """Positions (N, D), and their sines and cosines: ``(N, D + 2 D octaves)``.

    Args:
        x: Positions.
        octaves: How many wavelengths.
        longest: The first of them; each of the others is half of the one before.
    """
    numbers = torch.arange(octaves, device=x.device, dtype=torch.float32)
    waves = (x[..., None] * (2 * math.pi / longest * 2.0**numbers)).flatten(-2)
    return torch.cat([x, waves.sin(), waves.cos()], -1)


def save_atlas(atlas: LayeredAtlas, path: str | Path) -> None:
    """Write an atlas as safetensors, whole or not at all.

    Args:
        atlas: What is written.
        path: A safetensors file, which is replaced.
    """
    from safetensors.torch import save

    about = {"kind": KIND, "clip": atlas.clip, "size": list(atlas.size), "shape": asdict(atlas.shape)}
    state = {name: value.detach().cpu().contiguous() for name, value in atlas.state_dict().items()}
    about["sha256"] = _checksum(about, state)
    # one entry: safetensors writes several in a random order
    content = save(state, metadata={ENTRY: json.dumps(about)})
    with replacing(path) as partial:
        partial.write_bytes(content)


@own_modes
def load_atlas(path: str | Path, *, device: str | torch.device = "cpu") -> LayeredAtlas:
    """Read an atlas that :func:`save_atlas` wrote.

    Args:
        path: A safetensors file.
        device: Where to.

    Returns:
        The atlas, its parameters trainable.

    Raises:
        ValueError: If there is no such file, or it is damaged, which its checksum tells, or no atlas.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"atlas must be an existing file, found none at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"atlas must be a whole safetensors file, {path.name} is damaged: {error}") from None
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise ValueError(f"atlas must be a file that this version of geokernels wrote, {path.name} is not")
    if about.pop("sha256", None) != _checksum(about, state):
        raise ValueError(
            f"atlas must be as it was written, {path.name} is damaged: its checksum is of others"
        )
    try:
        shape = AtlasShape(**about["shape"])
        atlas = LayeredAtlas(state["motion"], tuple(about["size"]), shape, generator=torch.Generator())
        atlas.load_state_dict(state)
        atlas.clip = about["clip"]
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        why = reason_of(error)
        raise ValueError(f"atlas must be of this version of geokernels, {path.name} is not: {why}") from error
    return atlas.to(device).eval()


def _checksum(about: dict, state: dict[str, Tensor]) -> str:
    """Of everything in the file of an atlas."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class _SkippingNetwork(nn.Sequential):
    """Layers in turn, some of which are given the network's input besides."""

    def __init__(self, *layers: nn.Module, skips: frozenset[int]):
        super().__init__(*layers)
        self.skips = skips  # of the modules

    def forward(self, x: Tensor) -> Tensor:
        given = x
        for number, layer in enumerate(self):
            x = layer(torch.cat([x, given], 1) if number in self.skips else x)
        return x


def _network(inputs: int, outputs: int, width: int, layers: int, skips: Iterable[int] = ()) -> nn.Sequential:
    sizes = [inputs, *[width] * layers, outputs]
    modules: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise(sizes)):
        modules += [nn.Linear(a + inputs * (number in skips), b), nn.ReLU()]
    modules.pop()  # no ReLU after the last
    # each layer but the last is two modules
    return _SkippingNetwork(*modules, skips=frozenset(2 * number for number in skips))


def _initialise(atlas: LayeredAtlas, generator: torch.Generator) -> None:
    """He's initialisation from ``generator``; maps start at their affine motion."""
    for module in atlas.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    for network in atlas.maps:
        nn.init.zeros_(network[-1].weight)
