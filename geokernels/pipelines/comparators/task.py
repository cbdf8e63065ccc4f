"""What every method of editing is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...models.flow import FlowModel, latent_model
from ...models.latents import UnsuitedPipelineError
from ..edit.source import EditSource

UNET, FLOW = "U-Nets", "rectified-flow models"  # what a method can edit with


class EditModels(NamedTuple):
    """What methods may use; each takes what it needs.

    Attributes:
        pipeline: Of diffusers: Stable Diffusion 1, 2, XL or 3, or FLUX.
        encoder: The CLIP that guides OIG, or None.
        decoder: What shows it the picture, such as a tiny autoencoder; None for the pipeline's own.
        instructed: A pipeline of InstructPix2Pix, which was trained to follow instructions, or None.
    """

    pipeline: Any
    encoder: Any = None
    decoder: Any = None
    instructed: Any = None


@dataclass(frozen=True)
class EditTask:
    """Edits of B pictures.

    Attributes:
        pictures: ``(B, 3, H, W)`` in [0, 1].
        source: Their inversion, which all methods share; its captions say what they show.
        targets: What each should show.
        instructions: The same as commands.
        seeds: One per edit, so that it does not depend on what else is in the batch.
    """

    pictures: Tensor
    source: EditSource
    targets: tuple[str, ...]
    instructions: tuple[str, ...]
    seeds: tuple[int, ...]

    def part(self, i: int) -> "EditTask":
        """The edit of this number alone."""
        one, source = slice(i, i + 1), self.source
        source = replace(
            source, latents=source.latents[one], captions=source.captions[one], path=source.path[:, one]
        )
        return EditTask(
            self.pictures[one], source, self.targets[one], self.instructions[one], self.seeds[one]
        )

    def chances(self, device: torch.device) -> list[torch.Generator]:
        """A random number generator for each edit."""
        return [torch.Generator(device).manual_seed(seed) for seed in self.seeds]


class EditMethod(NamedTuple):
    """One way to edit.

    Attributes:
        title: Its name, for people.
        settings: A frozen dataclass whose defaults are those published, unless it says otherwise.
        run: From models, task and settings to pictures, ``(B, 3, H, W)`` float32 in [0, 1].
        suits: The families of models that it edits with.
        inverted: Whether it begins from the shared inversion, whose passes an edit by it then costs as well.
    """

    title: str
    settings: type
    run: Callable[[EditModels, EditTask, Any], Tensor]
    suits: tuple[str, ...] = (UNET,)
    inverted: bool = True


def require_suited(name: str, method: EditMethod, pipeline: Any) -> None:
    """Refuse a method that edits with another family of models than the pipeline is of.

    Raises:
        TypeError: If it is, or if the pipeline is of neither.
    """
    family = FLOW if isinstance(latent_model(pipeline), FlowModel) else UNET
    if family not in method.suits:
        raise UnsuitedPipelineError(
            f"{name} edits with {' and '.join(method.suits)} alone, got a {type(pipeline).__name__}"
        )
