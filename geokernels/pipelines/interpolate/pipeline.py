"""Prompt interpolation as a pipeline of diffusers."""

from collections.abc import Sequence

import torch
from diffusers.utils import BaseOutput

from ...models import load_text_to_image
from ...models.pipeline_files import EMBEDDED
from ...models.text_to_image import Embedding, TextToImage
from ..wrapping import WrappingPipeline
from .prompts import Distance, PromptInterpolationConfig, PromptInterpolationResult, interpolate_prompts


class PromptInterpolationOutput(BaseOutput):
    """What a call returns.

    Attributes:
        images: A list of ``PIL.Image``, or ``(frames, 3, H, W)`` in [0, 1].
        result: Times, distances, score and measured invariance.
    """

    images: object
    result: PromptInterpolationResult


class PromptInterpolationPipeline(WrappingPipeline):
    """A text-to-picture pipeline whose prompts are the stations of a path.

    Made by :meth:`from_pretrained` or :meth:`from_pipe`, of any kind that :class:`TextToImage` knows, or of
    their parts, which is how diffusers makes a ``custom_pipeline``. It shares the components of the pipeline
    it is made from; what moves or offloads them moves or offloads both.

    Example:
        >>> pipe = PromptInterpolationPipeline.from_pretrained("world")
        >>> chance = torch.Generator().manual_seed(0)
        >>> output = pipe(["a red circle", "a blue star"], generator=chance, frames=3, num_inference_steps=2)
        >>> len(output.images)
        3
    """

    @staticmethod
    def _require_kind(pipeline) -> None:
        TextToImage(pipeline)

    @classmethod
    def from_pretrained(cls, name, **options) -> "PromptInterpolationPipeline":
        """Load a folder, a model of the hub, or ``"world"`` or ``"world-flow"``, the embedded ones.

        Args:
            name: Where it is; the folder says of which kind.
            options: Those of ``DiffusionPipeline.from_pretrained``.

        Raises:
            TypeError: If the pipeline is of another kind.
        """
        if str(name) in EMBEDDED:
            kept = {key: options[key] for key in ("dtype", "torch_dtype") if key in options}
            if len(kept) != len(options):
                raise TypeError(f"{name!r} takes dtype alone, got {', '.join(options)}")
            dtype = next(iter(kept.values()), torch.float32)
            return cls.from_pipe(load_text_to_image(str(name), dtype=dtype))
        return super().from_pretrained(name, **options)

    def __call__(
        self,
        prompt: Sequence[str | Embedding],
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        negative_prompt: str | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        distance: Distance | None = None,
        output_type: str = "pil",
        **settings,
    ) -> PromptInterpolationOutput:
        """Draw pictures along a path through prompts.

        Args:
            prompt: Two or more texts or embeddings.
            generator: Source of random numbers, on the CPU: one, or one for each prompt.
            negative_prompt: What guidance leads away from.
            num_inference_steps: Of each sampling.
            guidance_scale: 1 is none.
            distance: Between pictures, for the score and even speed.
            output_type: ``"pil"`` or ``"pt"``.
            settings: The other fields of :class:`PromptInterpolationConfig`.

        Raises:
            ValueError: See :class:`~geokernels.pipelines.PromptInterpolation`.
        """
        if output_type not in ("pil", "pt"):
            raise ValueError(f"output_type must be pil or pt, got {output_type!r}")
        config = PromptInterpolationConfig(
            steps=num_inference_steps, guidance_scale=guidance_scale, **settings
        )
        result = interpolate_prompts(
            self.inner,
            prompt,
            config=config,
            generator=generator,
            negative=negative_prompt,
            distance=distance,
        )
        images = result.frames
        if output_type == "pil":
            images = self.numpy_to_pil(images.permute(0, 2, 3, 1).numpy())
        return PromptInterpolationOutput(images=images, result=result)
