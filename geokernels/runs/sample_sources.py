"""What ``geokernels world sample`` draws: renders, clips, edits, and the pictures of trained models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import world
from ..media.pictures import gif, read_picture
from ..models.drawing import draw_prompts, latent_shape, require_readable
from ..models.stylegan2 import Generator
from ..world.captions import reading, understand
from ..world.clips import Clip, render_clip
from ..world.edits import read_edit_folder, write_edit_folder
from ..world.held_out import sample_unseen
from .samples import EDITS, Sample

STRIDE = 2**20  # seeds between those of two runs, one a clip


class Renders:
    """Scenes drawn by the renderer, with their captions."""

    kind, batch = "scenes", 32

    def __init__(self, count: int, seed: int, *, size: int = 64) -> None:
        self.count, self.settings = count, {"seed": seed, "size": size}
        self.scenes = world.sample_scenes(count, generator=torch.Generator().manual_seed(seed))
        world.render(self.scenes[[0]], size)  # a size that cannot be is refused now

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.runs.samples.Source`."""
        scenes = self.scenes[list(rows)]
        return _judged(
            rows, world.render(scenes, self.settings["size"]), world.caption(scenes), scenes.names()
        )


class Clips:
    """Rendered clips: frames, masks and an animation of each, its flow and maps as safetensors."""

    kind, batch = "clips", 1

    def __init__(self, count: int, seed: int, *, frames: int = 16, size: int = 64) -> None:
        self.count, self.settings = count, {"seed": seed, "frames": frames, "size": size}
        self._draw(0)  # settings that cannot be are refused now

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.runs.samples.Source`."""
        return [self._draw(i) for i in rows]

    def _draw(self, i: int) -> Sample:
        chance = torch.Generator().manual_seed(self.settings["seed"] * STRIDE + i)
        scene = world.sample_scenes(1, generator=chance)
        clip = render_clip(scene, self.settings["frames"], self.settings["size"], generator=chance)
        shown = world.judge(_eight_bits(clip.frames)).names()
        # what is read in every frame alike
        seen = {a: value if all(s[a] == value for s in shown) else None for a, value in shown[0].items()}
        facts = {"caption": clip.caption, "wanted": scene.names()[0], "seen": seen}
        return Sample(_clip_files(f"clips/{i:04d}", clip), facts)


class Edits:
    """A folder of edits in the layout of PIE-Bench; the judge reads the truly edited pictures.

    Args:
        count: How many.
        seed: Chooses scenes and edits.
        out: The folder of the run, in which that of the edits is made.
        size: Of the pictures, a divisor of 512.
    """

    kind, batch = "edits", 50

    def __init__(self, count: int, seed: int, out: Path, *, size: int = 64) -> None:
        self.count, self.settings, self.out = count, {"seed": seed, "size": size}, out

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.runs.samples.Source`."""
        write_edit_folder(self.out / EDITS, rows.stop, **self.settings)
        cases = read_edit_folder(self.out / EDITS)[rows.start : rows.stop]
        edited = torch.stack([read_picture(case.edited).rgb for case in cases])
        return [
            Sample(
                {str(file.relative_to(self.out)): None for file in (case.picture, case.edited)},
                {
                    "caption": f"{case.source} → {case.target}",
                    "wanted": understand(case.target),
                    "seen": seen,
                },
            )
            for case, seen in zip(cases, world.judge(edited).names())
        ]


class Generated:
    """Pictures of a generator, from random z."""

    kind, batch = "generator", 32

    def __init__(self, count: int, seed: int, generator: Generator, *, truncation: float = 1.0) -> None:
        self.count, self.generator, self.truncation = count, generator, truncation
        self.settings = {"seed": seed, "model": generator.name, "truncation": truncation}
        chance = torch.Generator().manual_seed(seed)
        self.z = torch.randn(count, generator.config.style_dim, generator=chance, dtype=torch.float32)
        self.draw(range(1))  # a truncation that cannot be is refused now

    @torch.no_grad()
    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.runs.samples.Source`."""
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
        require_readable(pipeline, prompts)
        self.prompts = [prompts[i % len(prompts)] for i in range(count)]
        self.noise = torch.randn(count, *latent_shape(pipeline), generator=chance, dtype=torch.float32)
        self.settings = {"seed": seed, "model": model, "steps": steps, "guidance": guidance}
        self.settings["prompts"] = list(dict.fromkeys(self.prompts))

    def draw(self, rows: range) -> list[Sample]:
        """See :class:`~geokernels.runs.samples.Source`."""
        prompts = [self.prompts[i] for i in rows]
        pictures = draw_prompts(
            self.pipeline, prompts, self.noise[list(rows)], steps=self.steps, guidance_scale=self.guidance
        )
        return _judged(rows, pictures, prompts, [understand(prompt) for prompt in prompts])


def _judged(
    rows: range,
    pictures: Tensor,
    captions: Sequence[str] | None = None,
    wanted: Sequence[dict[str, str] | None] | None = None,
) -> list[Sample]:
    """Samples of one picture each, judged in 8 bits, as written; captions not given are the judge's."""
    pictures = _eight_bits(pictures)
    verdict = world.judge(pictures)
    seen, sure = verdict.names(), verdict.confidence.tolist()
    captions = captions or [reading(names) for names in seen]
    wanted = wanted or [None] * len(seen)
    facts = [
        {"caption": said, "wanted": asked, "seen": names, "confidence": _rounded(names, chances)}
        for said, asked, names, chances in zip(captions, wanted, seen, sure)
    ]
    return [
        Sample({f"pictures/{i:04d}.png": picture}, fact) for i, picture, fact in zip(rows, pictures, facts)
    ]


def _rounded(names: dict, chances: list[float]) -> dict[str, float]:
    return {attribute: round(chance, 3) for attribute, chance in zip(names, chances)}


def _eight_bits(pictures: Tensor) -> Tensor:
    """Pictures as a file of them is read."""
    return pictures.mul(255).round().div(255)


def _clip_files(folder: str, clip: Clip) -> dict[str, Tensor | bytes]:
    """The files of a clip, by name; its first frame comes first."""
    from safetensors.torch import save

    files: dict[str, Tensor | bytes] = {}
    for kind, pictures in (("frame", clip.frames), ("mask", clip.masks.expand(-1, 3, -1, -1))):
        files |= {f"{folder}/{kind}-{t:03d}.png": shown for t, shown in enumerate(pictures)}
    truth = {"flow": clip.flow, "visible": clip.visible, "object_map": clip.object_map}
    truth = {name: value.contiguous() for name, value in {**truth, "ground_map": clip.ground_map}.items()}
    return {**files, f"{folder}/clip.gif": gif(list(clip.frames)), f"{folder}/truth.safetensors": save(truth)}
