"""What editors on rectified flows share: settings published for each model, and noise for each edit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...models.flow import FlowModel
from .task import EditTask


class FlowSettings:
    """The base of settings of which those that are None are filled by what was published for the model."""

    published: ClassVar[Mapping[str, Mapping[str, Any]]]  # of "sd3" and of "flux"

    def settled(self, model: FlowModel) -> Self:
        """The same with every setting filled.

        Raises:
            ValueError: If those that were given do not go with the published ones, or a scale was given for a
                model without guidance.
        """
        scale = getattr(self, "guidance_scale", None)
        if not model.guidable and scale not in (None, 1):
            raise ValueError(f"guidance_scale must be left out for a model without guidance, got {scale}")
        own = self.published[model.kind]
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})


def noises(model: FlowModel, task: EditTask) -> Callable[[], Tensor]:
    """Draws noise for every edit from its own seed, the same in any batch and precision."""
    chances = task.chances(torch.device("cpu"))

    def draw() -> Tensor:
        shape = task.source.latents.shape[1:]
        rows = [torch.randn(shape, generator=chance, dtype=torch.float32) for chance in chances]
        return torch.stack(rows).to(model.device, model.dtype)

    return draw
