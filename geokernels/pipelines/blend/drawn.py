"""Frames that a diffusion model draws between two pictures: their inverted latents, moved and mixed.

A state at a level of noise is a share of the picture's latents and a share of unit noise. The latents are
moved along the motion of the film and mixed as the pictures' own colours are. The noise moves with them, but
a weighted mean of noise is less than noise, out of which a model draws nothing but blur: it is brought back
to the strength that it had.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.latents import LatentModel, Words
from ..edit.partway import Partway
from ..interpolate.couplings import PromptPath, prompt_path
from .config import BlendConfig
from .frames import Mixture, Scene
from .grids import resized
from .places import sample


class Drawing(NamedTuple):
    """What all frames of a film are drawn from.

    Attributes:
        model: That draws.
        scene: The film without it.
        way: Between pictures and the level from which frames are drawn.
        clean: Latents of both pictures, ``(2, C, h, w)``.
        noise: Theirs at the level, of unit strength, in the same shape.
        path: From what is read of the one text to what is read of the other.
        nothing: What is read of no text.
        guidance_scale: Of classifier-free guidance.
        missing: What the model's own pictures of both lack of them, ``(2, 3, H, W)``.
    """

    model: LatentModel
    scene: Scene
    way: Partway
    clean: Tensor
    noise: Tensor
    path: PromptPath
    nothing: Words
    guidance_scale: float
    missing: Tensor | None = None

    @torch.no_grad()
    def draw(self, times: Sequence[float]) -> Tensor:
        """What the model makes of the states at ``times`` between 0 and 1, ``(T, 3, H, W)``, at once."""
        return self._drawn(times, [self._state(t) for t in times])

    @torch.no_grad()
    def of_ends(self) -> Tensor:
        """What the model makes of both pictures again, ``(2, 3, H, W)``, not clamped."""
        states = self.way.picture * self.clean + self.way.noise * self.noise
        return self._drawn((0.0, 1.0), list(states))

    def _drawn(self, times: Sequence[float], states: list[Tensor]) -> Tensor:
        at = torch.tensor(times, dtype=torch.float64)
        rows, pooled = self.path.segments[0].at(at), self.path.pooled_at(0, at)
        own = self.nothing.rows
        asked = Words(rows.to(own), None if pooled is None else pooled.to(own))
        words = self.model.guided(self.nothing.repeat(len(times)), asked, self.guidance_scale)
        if self.guidance_scale == 1:
            words = words[-1:]  # a pair would be drawn in two passes, of which one counts for nothing
        latents = self.way.down(torch.stack(states), words, guidance_scale=self.guidance_scale)
        pictures = self.model.pictures(latents).to(self.scene.pictures[0].device)
        return torch.stack([resized(picture, self.scene.places.size) for picture in pictures])

    def _state(self, t: float) -> Tensor:
        """The state from which the frame at ``t`` is drawn, ``(C, h, w)``."""
        grid = _on_grid(self.scene.mixture(t), tuple(self.clean.shape[2:]), self.clean)
        latents = [sample(own, at, mode="bicubic") for own, at in zip(self.clean, grid.origins)]
        noises = [sample(own, at) for own, at in zip(self.noise, grid.origins)]
        shares = 1 - grid.share, grid.share
        noise = shares[0] * noises[0] + shares[1] * noises[1]
        variance = sum(
            share**2 * _variance(at, self.clean.shape[2:]) for share, at in zip(shares, grid.origins)
        )
        mixed = torch.lerp(*latents, grid.share)
        return self.way.picture * mixed + self.way.noise * noise / variance.sqrt()

    @torch.no_grad()
    def complete(self, drawn: Tensor, t: float, scene: Scene, rows: slice) -> Tensor:
        """Rows of a drawn frame with what the model lacks of the pictures, moved along.

        What both show stays as sharp as they are for the whole film; what has no partner would be seen
        through what is drawn, and is gone in the middle.

        Args:
            drawn: The frame, ``(3, H, W)``.
            t: Its time.
            scene: Of these rows.
            rows: Which they are.
        """
        found = scene.mixture(t)
        first, second = (
            sample(part, at, mode="bicubic", beyond="reflection")
            for part, at in zip(self.missing, found.origins)
        )
        kept = found.partner + (1 - found.partner) * abs(1 - 2 * t)
        return (drawn[:, rows] + kept * torch.lerp(first, second, found.share)).clamp(0, 1)


@torch.no_grad()
def find_drawing(
    model: LatentModel,
    scene: Scene,
    texts: tuple[str, str],
    config: BlendConfig,
    tell: Callable[..., None],
) -> Drawing:
    """Invert both pictures, and say what frames between them are drawn from.

    Both are laid into the frame, continued at their edges, and brought to the size that the model takes.

    Args:
        model: That draws.
        scene: The film without it.
        texts: What the pictures show; "" for nothing said.
        config: Its level, steps, solver, guidance scale and longest side.
        tell: See :class:`geokernels.pipelines.run.Run`.

    Raises:
        ValueError: If a text is too long, or the model cannot take the steps.
        FloatingPointError: If the model returns NaN.
    """
    tell("reading the pictures")
    given = [scene.given(which)[:3] for which in (0, 1)]
    clean = model.encode(torch.stack([model.suited(picture, config.longest) for picture in given]))
    way = Partway(
        model, steps=config.steps, level=config.level, sides=tuple(clean.shape[2:]), solver=config.solver
    )
    states = [clean]
    for done, state in enumerate(way.up(clean, model.read(texts))):
        tell("inverting the pictures", done, way.climbs, "steps")
        states = [state]
    noise = (states[0] - way.picture * clean) / way.noise
    path = prompt_path([model.embedding(text) for text in texts])
    found = Drawing(model, scene, way, clean, noise, path, model.read([""]), config.guidance_scale)
    tell("drawing the pictures again")
    missing = torch.stack(given) - found.of_ends()
    return found._replace(missing=missing)


def _on_grid(found: Mixture, size: tuple[int, int], like: Tensor) -> Mixture:
    """The same for a grid of latents over the frame, in its cells, where and as ``like`` is."""
    H, W = found.share.shape[1:]
    scale = torch.tensor([size[1] / W, size[0] / H], dtype=like.dtype, device=like.device)

    def coarse(planes: Tensor) -> Tensor:
        return resized(planes, size).to(like)

    origins = [(coarse(at.permute(2, 0, 1)).permute(1, 2, 0) + 0.5) * scale - 0.5 for at in found.origins]
    return Mixture((origins[0], origins[1]), coarse(found.share), coarse(found.partner))


def _variance(at: Tensor, size: tuple[int, int]) -> Tensor:
    """Of independent unit noise read between its cells at ``at`` (h, w, 2): squares of weights, summed."""
    parts = [at[..., axis].clamp(0, side - 1) % 1 for axis, side in ((0, size[1]), (1, size[0]))]
    x, y = (part.square() + (1 - part).square() for part in parts)
    return (x * y)[None]
