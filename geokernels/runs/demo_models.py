"""What the demonstration's generative models draw: a walk in w, a line between prompts, new prompts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import world
from ..models.drawing import draw_between, draw_prompts, latent_shape
from ..models.stylegan2 import Generator
from ..world.captions import Seen, reading
from ..world.held_out import sample_unseen


@dataclass(frozen=True)
class Walk:
    """A straight line between two points of a latent space, drawn and judged."""

    ends: tuple[str, str]  # what stands at both
    frames: Tensor  # (n, 3, H, W)
    seen: list[Seen]

    @property
    def evenness(self) -> float:
        """The largest step over the mean step; a step is the root mean square difference of two pictures."""
        steps = self.frames.diff(dim=0).square().mean((1, 2, 3)).sqrt()
        return float(steps.max() / steps.mean().clamp(min=1e-12))

    def facts(self) -> dict:
        """What ``run.json`` says of it."""
        return {"ends": list(self.ends), "largest_over_mean_step": round(self.evenness, 3), "seen": self.seen}


@dataclass(frozen=True)
class Drawn:
    """Pictures of prompts, judged."""

    prompts: list[str]
    wanted: list[dict[str, str]]
    pictures: Tensor  # (n, 3, H, W)
    seen: list[Seen]

    def right(self, attribute: str) -> int:
        """In how many pictures the judge reads what the prompt says."""
        return sum(seen[attribute] == wanted[attribute] for seen, wanted in zip(self.seen, self.wanted))

    def facts(self) -> list[dict]:
        """What ``run.json`` says of it."""
        return [
            {"prompt": prompt, "wanted": wanted, "seen": seen}
            for prompt, wanted, seen in zip(self.prompts, self.wanted, self.seen)
        ]


@torch.no_grad()
def walk_in_w(generator: Generator, *, pictures: int, seed: int) -> Walk:
    """Draw the line between the w of the first two samples of ``seed``."""
    chance = torch.Generator().manual_seed(seed)
    first, second = generator.mapping(
        torch.randn(2, generator.config.style_dim, generator=chance, dtype=torch.float32)
    )
    frames = generator.synthesis(
        first.lerp(second, torch.linspace(0, 1, pictures, dtype=torch.float32)[:, None])
    ).clamp(0, 1)
    seen = world.judge(frames).names()
    return Walk((reading(seen[0]), reading(seen[-1])), frames, seen)


def line_of_prompts(
    pipeline, *, pictures: int, steps: int, guidance: float, seed: int, on_step: Callable[[], None]
) -> Walk:
    """Draw the line between two unseen prompts, from one noise."""
    scenes, noise = _unseen(pipeline, 2, seed)
    first, second = world.caption(scenes)
    how = {"pictures": pictures, "steps": steps, "guidance_scale": guidance, "on_step": on_step}
    frames = draw_between(pipeline, first, second, noise[:1], **how)
    return Walk((first, second), frames, world.judge(frames).names())


def draw_unseen(
    pipeline, *, pictures: int, steps: int, guidance: float, seed: int, on_step: Callable[[], None]
) -> Drawn:
    """Draw prompts whose combination of attributes training never showed."""
    scenes, noise = _unseen(pipeline, pictures, seed)
    prompts = world.caption(scenes)
    drawn = draw_prompts(pipeline, prompts, noise, steps=steps, guidance_scale=guidance, on_step=on_step)
    return Drawn(prompts, scenes.names(), drawn, world.judge(drawn).names())


def _unseen(pipeline, n: int, seed: int) -> tuple[world.Scenes, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    # of few scenes drawn, none may be of a combination that was held out
    scenes = sample_unseen(max(n, 50), generator=chance)[:n]
    return scenes, torch.randn(n, *latent_shape(pipeline), generator=chance, dtype=torch.float32)
