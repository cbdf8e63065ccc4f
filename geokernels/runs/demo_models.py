"""The demonstration's generative models: a walk in w, a line between two prompts, pictures of new prompts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import world
from ..media.pictures import gif
from ..models.drawing import draw_between, draw_prompts, latent_shape
from ..models.stylegan2 import Generator
from ..report.page import badge, figure, film, picture, row, section, table, text
from ..world.held_out import sample_unseen

Seen = dict[str, str | None]


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
    how = {"pictures": pictures, "steps": steps, "guidance": guidance, "on_step": on_step}
    frames = draw_between(pipeline, first, second, noise[:1], **how)
    return Walk((first, second), frames, world.judge(frames).names())


def draw_unseen(
    pipeline, *, pictures: int, steps: int, guidance: float, seed: int, on_step: Callable[[], None]
) -> Drawn:
    """Draw prompts whose combination of attributes training never showed."""
    scenes, noise = _unseen(pipeline, pictures, seed)
    prompts = world.caption(scenes)
    drawn = draw_prompts(pipeline, prompts, noise, steps=steps, guidance=guidance, on_step=on_step)
    return Drawn(prompts, scenes.names(), drawn, world.judge(drawn).names())


def _unseen(pipeline, n: int, seed: int) -> tuple[world.Scenes, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    # of few scenes drawn, none may be of a combination that was held out
    scenes = sample_unseen(max(n, 50), generator=chance)[:n]
    return scenes, torch.randn(n, *latent_shape(pipeline), generator=chance, dtype=torch.float32)


def reading(seen: Seen) -> str:
    """What the judge sees, in words; what it cannot name is left unsaid."""
    return world.describe({attribute: value for attribute, value in seen.items() if value is not None})


def walk_section(heading: str, walk: Walk, lead: str) -> str:
    """A walk: both ends, the animation, a film with the judge's reading under each picture."""
    frames = list(walk.frames)
    shown = row(
        picture(frames[0], f"Start of the walk: {walk.ends[0]}", f"start: {text(walk.ends[0])}"),
        figure(gif(frames), "Animation of the walk", "on the way", kind="gif"),
        picture(frames[-1], f"End of the walk: {walk.ends[1]}", f"end: {text(walk.ends[1])}"),
    )
    strip = film(frames, "on the way", labels=[reading(seen) for seen in walk.seen])
    steps = f"The largest of {len(frames) - 1} steps is {walk.evenness:.1f} times the mean step."
    return section(heading, f"<p>{lead}</p>", shown, strip, f"<p class=note>{steps}</p>")


def drawn_section(heading: str, drawn: Drawn, lead: str) -> str:
    """Pictures of prompts, with what the judge reads marked right or wrong."""
    cards = [
        picture(shown, prompt, f"{text(prompt)}<br>{_badges(wanted, seen)}")
        for shown, prompt, wanted, seen in zip(drawn.pictures, drawn.prompts, drawn.wanted, drawn.seen)
    ]
    n = len(drawn.prompts)
    every = sum(seen == wanted for seen, wanted in zip(drawn.seen, drawn.wanted))
    counts = [f"{drawn.right(attribute)} of {n}" for attribute in world.ATTRIBUTES]
    judged = table(("", *world.ATTRIBUTES, "all five"), [("as asked", *counts, f"{every} of {n}")])
    return section(heading, f"<p>{lead}</p>", judged, row(*cards))


def _badges(wanted: dict[str, str], seen: Seen) -> str:
    return " ".join(badge(seen[a] or f"no {a}", seen[a] == value) for a, value in wanted.items())


def left_out(heading: str, reason: str) -> str:
    """A part that could not run here, and why."""
    return section(heading, f"<p>This part was left out: {text(reason)}.</p>")
