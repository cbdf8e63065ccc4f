"""What `geokernels world sample` can draw: renders, pictures of the generator, pictures of prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import world
from ..models.stylegan2 import Generator
from ..world.captions import understand
from ..world.held_out import sample_unseen
from .demo_models import reading
from .drawing import draw_prompts, latent_shape
from .samples import Sample


class Renders:
    """Scenes drawn by the renderer, with their captions."""

    kind, batch = "scenes", 32

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.settings = count, {"seed": seed}
        self.scenes = world.sample_scenes(count, generator=torch.Generator().manual_seed(seed))

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.report.samples.Source`."""
        scenes = self.scenes[list(rows)]
        return _judged(rows, world.render(scenes), world.caption(scenes), scenes.names())


class Generated:
    """Pictures of a generator, from random z."""

    kind, batch = "generator", 32

    def __init__(self, count: int, seed: int, generator: Generator, *, truncation: float = 1.0) -> None:
        self.count, self.generator, self.truncation = count, generator, truncation
        self.settings = {"seed": seed, "model": generator.name, "truncation": truncation}
        chance = torch.Generator().manual_seed(seed)
        self.z = torch.randn(count, generator.config.style_dim, generator=chance)

    @torch.no_grad()
    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.report.samples.Source`."""
        z = self.z[list(rows)].to(self.generator.latent_avg)
        return _judged(rows, self.generator(z, truncation=self.truncation).clamp(0, 1).cpu())


class Prompted:
    """Pictures of prompts, which take turns; of prompts that no training showed, where none is given.

    Args:
        count: How many pictures.
        seed: Chooses noise, and unseen prompts.
        pipeline: A ``diffusers.StableDiffusionPipeline``.
        model: Its name.
        prompts: What to draw; empty for unseen prompts of the rendered world.
        steps: Of each sampling.
        guidance: Scale of classifier-free guidance.
    """

    kind, batch = "diffusion", 8

    def __init__(
        self,
        count: int,
        seed: int,
        pipeline,
        *,
        model: str,
        prompts: Sequence[str],
        steps: int,
        guidance: float,
    ) -> None:
        self.count, self.pipeline, self.steps, self.guidance = count, pipeline, steps, guidance
        chance = torch.Generator().manual_seed(seed)
        if not prompts:
            # of few scenes drawn, none may be of a combination that was held out
            prompts = world.caption(sample_unseen(max(count, 50), generator=chance)[:count])
        self.prompts = [prompts[i % len(prompts)] for i in range(count)]
        self.noise = torch.randn(count, *latent_shape(pipeline), generator=chance)
        self.settings = {"seed": seed, "model": model, "steps": steps, "guidance": guidance}
        self.settings["prompts"] = list(dict.fromkeys(self.prompts))

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.report.samples.Source`."""
        prompts = [self.prompts[i] for i in rows]
        pictures = draw_prompts(
            self.pipeline, prompts, self.noise[list(rows)], steps=self.steps, guidance=self.guidance
        )
        return _judged(rows, pictures, prompts, [understand(prompt) for prompt in prompts])


def _judged(
    rows: range,
    pictures: Tensor,
    captions: Sequence[str] | None = None,
    wanted: Sequence[dict[str, str] | None] | None = None,
) -> list[Sample]:
    """Samples of one picture each, judged in 8 bits, as written; captions not given are the judge's."""
    pictures = pictures.mul(255).round().div(255)
    seen = world.judge(pictures).names()
    captions = captions or [reading(names) for names in seen]
    return [
        Sample({f"pictures/{i:04d}.png": picture}, {"caption": said, "wanted": asked, "seen": found})
        for i, picture, said, asked, found in zip(
            rows, pictures, captions, wanted or [None] * len(seen), seen
        )
    ]
