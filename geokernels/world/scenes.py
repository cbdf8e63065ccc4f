"""What a scene of the rendered world is, how scenes are drawn by chance, and how one is edited."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .._modes import own_modes

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
"""Colours of objects and of backgrounds."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon"),
    "colour": COLOURS,
    "background": COLOURS,
    "size": ("small", "large"),
    "texture": ("plain", "striped", "dotted"),
}
"""Every attribute that a caption can name and the judge can read, and its values in the order of indices."""

PALETTE = torch.tensor(
    [
        [0.84, 0.08, 0.12],
        [0.96, 0.47, 0.04],
        [0.96, 0.90, 0.16],
        [0.10, 0.62, 0.20],
        [0.12, 0.82, 0.86],
        [0.14, 0.26, 0.86],
        [0.55, 0.16, 0.72],
        [0.96, 0.96, 0.96],
    ],
    dtype=torch.float32,
)
"""RGB of ``COLOURS``. No two are closer than 0.44, nor is any to another's darker shade closer than 0.3."""

RADII = ((0.15, 0.18), (0.25, 0.29))  # of small and large objects, in picture widths
CENTRES = (0.35, 0.65)  # keeps the largest object inside, so that a change of size never moves it
ANGLE = 0.3  # largest rotation, radians
LIGHT = 0.12  # largest relative change of brightness between centre and border
JITTER = 0.04  # largest deviation of a colour channel from the palette


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes: five named attributes, and the nuisances that no caption mentions.

    Attributes:
        shape: Index into ``ATTRIBUTES["shape"]``, ``(n,)`` int64; so for the next four.
        colour: Of the object.
        background: Never equal to ``colour``.
        size: Of the object.
        texture: Of the object.
        centre: Of the object, ``(n, 2)`` as (x, y) in picture widths.
        scale: Position of the radius within its range in ``RADII``, ``(n,)`` in [0, 1].
        angle: Rotation in radians, ``(n,)``.
        light: Brightness gradient, ``(n, 2)``.
        object_jitter: Deviation of the object's colour from the palette, ``(n, 3)``.
        background_jitter: The same of the background.
        grain: Which window of the noise field the picture shows, ``(n, 2)`` int64.
    """

    shape: Tensor
    colour: Tensor
    background: Tensor
    size: Tensor
    texture: Tensor
    centre: Tensor
    scale: Tensor
    angle: Tensor
    light: Tensor
    object_jitter: Tensor
    background_jitter: Tensor
    grain: Tensor

    def __len__(self) -> int:
        return self.shape.shape[0]

    def __getitem__(self, index) -> "Scenes":
        """Pick scenes by slice, mask or index tensor; an integer keeps the batch dimension."""
        index = [index] if isinstance(index, int) else index
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @property
    def radius(self) -> Tensor:
        """Object radius in picture widths, ``(n,)``."""
        low, high = torch.tensor(RADII, dtype=torch.float32)[self.size].unbind(-1)
        return low + self.scale * (high - low)

    def names(self) -> list[dict[str, str]]:
        """One ``{attribute: value}`` dictionary a scene, in words."""
        columns = [[values[i] for i in getattr(self, a).tolist()] for a, values in ATTRIBUTES.items()]
        return [dict(zip(ATTRIBUTES, row)) for row in zip(*columns)]


@own_modes
def sample_scenes(n: int, *, generator: torch.Generator) -> Scenes:
    """Draw ``n`` independent scenes.

    Every attribute is uniform over its values, save that the background is uniform over the seven colours
    that the object does not have.

    Args:
        n: How many.
        generator: Source of chance; the same state gives the same scenes.

    Returns:
        The scenes.

    Raises:
        ValueError: If ``n`` is negative.

    Example:
        >>> scenes = sample_scenes(3, generator=torch.Generator().manual_seed(0))
        >>> len(scenes), bool((scenes.colour != scenes.background).all())
        (3, True)
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")

    def pick(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (n, *shape), generator=generator)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((n, *shape), generator=generator, dtype=torch.float32)

    colour = pick(len(COLOURS))
    turn, strength = uniform(0, 2 * torch.pi), uniform(0, LIGHT)
    return Scenes(
        shape=pick(len(ATTRIBUTES["shape"])),
        colour=colour,
        background=(colour + 1 + pick(len(COLOURS) - 1)) % len(COLOURS),
        size=pick(len(ATTRIBUTES["size"])),
        texture=pick(len(ATTRIBUTES["texture"])),
        centre=uniform(*CENTRES, 2),
        scale=uniform(0, 1),
        angle=uniform(-ANGLE, ANGLE),
        light=strength[:, None] * torch.stack([turn.cos(), turn.sin()], -1),
        object_jitter=uniform(-JITTER, JITTER, 3),
        background_jitter=uniform(-JITTER, JITTER, 3),
        grain=pick(256, 2),
    )


@own_modes
def edit(scenes: Scenes, attribute: str, *, generator: torch.Generator) -> Scenes:
    """Change one attribute of every scene to another legal value; everything else stays, noise included.

    Args:
        scenes: The scenes to start from; not modified.
        attribute: A key of ``ATTRIBUTES``.
        generator: Chooses the new values, uniformly over the legal ones.

    Returns:
        The edited scenes. Object and background still differ in colour.

    Raises:
        ValueError: If ``attribute`` is not one of ``ATTRIBUTES``.
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(f"attribute must be one of {', '.join(ATTRIBUTES)}, got {attribute!r}")
    current = getattr(scenes, attribute)
    if len(scenes) == 0:
        return scenes
    legal = torch.ones(len(scenes), len(ATTRIBUTES[attribute]), dtype=torch.float32)
    legal.scatter_(1, current[:, None], 0)
    opposite = {"colour": scenes.background, "background": scenes.colour}.get(attribute)
    if opposite is not None:
        legal.scatter_(1, opposite[:, None], 0)
    return replace(scenes, **{attribute: torch.multinomial(legal, 1, generator=generator)[:, 0]})
