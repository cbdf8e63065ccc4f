"""Soft scenes: what a Gaussian z means, as a code that can be interpolated, and exact renders of such codes.

A code has one weight for every value of an attribute (of size, the share of "large"), then the nuisances,
scaled to about [-1, 1]. Between pure codes colours mix in RGB, outlines as signed distances and textures by
contrast, so a straight line from code to code is a smooth change of the picture.
"""

import torch
from torch import Tensor

from geokernels.world import ATTRIBUTES, PALETTE
from geokernels.world.renderer import SHADE, texture_distance
from geokernels.world.scenes import ANGLE, CENTRES, JITTER, LIGHT, RADII
from geokernels.world.shapes import signed_distance

# Widths of the blocks of a code, in order.
BLOCKS = {
    "shape": 8,
    "colour": 8,
    "background": 8,
    "texture": 3,
    "size": 1,
    "scale": 1,
    "centre": 2,
    "angle": 1,
    "light": 2,
    "object_jitter": 3,
    "background_jitter": 3,
}
WIDTH = sum(BLOCKS.values())
NUISANCES = WIDTH - 28  # they come last
# How many Gaussians of z decide each: three signs choose among eight values, two thresholds among three.
DECIDE = BLOCKS | {"shape": 3, "colour": 3, "background": 3, "texture": 1}
CHOICES = ("shape", "colour", "background", "texture", "size")
THIRD = 0.430727  # a Gaussian lies between -THIRD and THIRD one time in three
DEAD = 0.15  # weights this close to 0 or 1 are pure
CHUNK = 16  # pictures drawn at once, so that they stay in the cache


def split(code: Tensor) -> dict[str, Tensor]:
    """The blocks of a code ``(n, WIDTH)`` by name."""
    return dict(zip(BLOCKS, code.split(list(BLOCKS.values()), -1)))


def code_of(z: Tensor, *, softness: float) -> Tensor:
    """The scene that ``z`` (n, style_dim) stands for, ``(n, WIDTH)``.

    Shape and colours are each chosen by the signs of three Gaussians, size by one, texture by two thresholds
    of one; within ``softness`` of a threshold the values mix. A background of the object's colour is
    replaced by its neighbour. Nuisances are uniform, as in :func:`geokernels.world.sample_scenes`. Only
    the direction of ``z`` counts, as for the network.
    """
    z = z * z.square().mean(1, keepdim=True).rsqrt()
    part = dict(zip(DECIDE, z[:, : sum(DECIDE.values())].split(list(DECIDE.values()), 1)))
    shape, colour, background = (_octant(part[a], softness) for a in ("shape", "colour", "background"))
    clash = background * colour
    background = background - clash + clash[:, torch.arange(8) ^ 1]
    above = [_step(part["texture"] - threshold, softness) for threshold in (-THIRD, THIRD)]
    texture = torch.cat([1 - above[0], above[0] - above[1], above[1]], 1)
    # the CDF of the length of a Gaussian pair: strength is uniform, direction too
    length = part["light"].square().sum(1, keepdim=True)
    light = part["light"] * (1 - (-length / 2).exp()) * (length + 1e-12).rsqrt()
    uniform = [torch.erf(part[a] / 2**0.5) for a in ("scale", "centre", "angle")]
    jitter = [torch.erf(part[a] / 2**0.5) for a in ("object_jitter", "background_jitter")]
    size = _step(part["size"], softness)
    return torch.cat([shape, colour, background, texture, size, *uniform, light, *jitter], 1)


def _step(x: Tensor, softness: float) -> Tensor:
    """0 below, 1 above, a ramp of half-width ``softness`` between."""
    return (x / (2 * softness) + 0.5).clamp(0, 1)


def _octant(x: Tensor, softness: float) -> Tensor:
    """Weights of the eight sign patterns of ``x`` (n, 3), ``(n, 8)``."""
    up = _step(x, softness)
    each = torch.stack([1 - up, up], -1)  # (n, 3, 2)
    return torch.einsum("ni,nj,nk->nijk", *each.unbind(1)).flatten(1)


def purify(code: Tensor) -> dict[str, Tensor]:
    """The blocks of a code with weights near 0 or 1 made pure, and summing to 1."""
    part = split(code)
    for attribute in CHOICES:
        weight = ((part[attribute] - DEAD) / (1 - 2 * DEAD)).clamp(0, 1)
        if attribute != "size":
            weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
        part[attribute] = weight
    return part


def mixed(code: Tensor) -> dict[str, Tensor]:
    """Whether each choice of each code is a mixture without a clear winner, ``{attribute: (n,)}``."""
    part = purify(code)
    best = {a: part[a].amax(1) for a in CHOICES}
    best["size"] = torch.maximum(part["size"], 1 - part["size"])[:, 0]
    return {a: b < 0.75 for a, b in best.items()}


def draw(code: Tensor, size: int = 64) -> tuple[Tensor, Tensor]:
    """Render codes as :func:`geokernels.world.render` renders scenes, without grain.

    Returns:
        Pictures ``(n, 3, size, size)`` and the object's coverage ``(n, 1, size, size)``.
    """
    pictures, masks = zip(*(_draw(part, size) for part in code.split(CHUNK)))
    return torch.cat(pictures), torch.cat(masks)


def _draw(code: Tensor, size: int) -> tuple[Tensor, Tensor]:
    n, part = len(code), purify(code)
    shares = torch.stack([1 - part["size"][:, 0], part["size"][:, 0]], 1)
    low, high = (shares @ torch.tensor(RADII)).unbind(1)
    # sizes beyond the world's are met in extrapolation only
    radius = (low + (part["scale"][:, 0] + 1) / 2 * (high - low)).clamp(min=0.05)[:, None, None]
    middle, reach = sum(CENTRES) / 2, (CENTRES[1] - CENTRES[0]) / 2
    centre = middle + reach * part["centre"]
    angle = ANGLE * part["angle"][:, :, None]

    pixel = (torch.arange(size) + 0.5) / size
    x = (pixel[None, None, :] - centre[:, 0, None, None]) / radius
    y = (pixel[None, :, None] - centre[:, 1, None, None]) / radius
    u, v = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x

    def cover(distance: Tensor) -> Tensor:
        return (0.5 - distance * radius * size).clamp(0, 1)

    shapes = torch.arange(len(ATTRIBUTES["shape"])).repeat(n)
    each = [t.repeat_interleave(len(ATTRIBUTES["shape"]), 0) for t in (u, v)]
    distance = signed_distance(shapes, *each).view(n, -1, size, size)
    inside = cover(torch.einsum("ns,nshw->nhw", part["shape"], distance))[:, None]
    stripes, dots = texture_distance(u, v)
    _plain, striped, dotted = part["texture"][..., None, None].unbind(1)
    dark = (striped * cover(stripes) + dotted * cover(dots))[:, None]

    paint = (part["colour"] @ PALETTE + JITTER * part["object_jitter"])[..., None, None]
    ground = (part["background"] @ PALETTE + JITTER * part["background_jitter"])[..., None, None]
    picture = ground + inside * (paint * (1 - (1 - SHADE) * dark) - ground)
    light = LIGHT * part["light"][..., None, None]
    across = (pixel - 0.5) * 2
    shine = 1 + light[:, 0] * across + light[:, 1] * across[:, None]
    return (picture * shine[:, None]).clamp(0, 1), inside
