"""Prompt interpolation as a pipeline of diffusers."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from ...models import load_text_to_image
from ...models.text_to_image import Embedding, TextToImage
from .prompts import Distance, PromptInterpolationConfig, PromptInterpolationResult, interpolate_prompts


class PromptInterpolationOutput(BaseOutput):
    """What a call returns.

    Attributes:
        images: A list of ``PIL.Image``, or ``(frames, 3, H, W)`` in [0, 1].
        result: Times, distances, score and measured invariance.
    """

    images: object
    result: PromptInterpolationResult


class PromptInterpolationPipeline(DiffusionPipeline):
    """A text-to-picture pipeline whose prompts are the stations of a path.

    Made by :meth:`from_pretrained` or :meth:`from_pipe`, of any kind that :class:`TextToImage` knows. It
    shares the components of the pipeline it is made from; what moves or offloads them moves or offloads both.

    Example:
        >>> pipe = PromptInterpolationPipeline.from_pretrained("world")
        >>> chance = torch.Generator().manual_seed(0)
        >>> output = pipe(["a red circle", "a blue star"], generator=chance, frames=3, num_inference_steps=2)
        >>> len(output.images)
        3
    """

    _optional_components: ClassVar[list[str]] = [
        "tokenizer",
        "text_encoder",
        "unet",
        "transformer",
        "tokenizer_2",
        "text_encoder_2",
        "tokenizer_3",
        "text_encoder_3",
        "image_encoder",
        "feature_extractor",
        "safety_checker",
    ]

    def __init__(
        self,
        scheduler,
        vae,
        tokenizer=None,
        text_encoder=None,
        unet=None,
        transformer=None,
        tokenizer_2=None,
        text_encoder_2=None,
        tokenizer_3=None,
        text_encoder_3=None,
        image_encoder=None,
        feature_extractor=None,
        safety_checker=None,
    ):
        super().__init__()
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.register_modules(**given)

    @classmethod
    def from_pretrained(cls, name, **options) -> "PromptInterpolationPipeline":
        """Load a folder, a model of the hub, or ``"world"``.

        Args:
            name: Where it is; the folder says of which kind.
            options: Those of ``DiffusionPipeline.from_pretrained``.

        Raises:
            TypeError: If the pipeline is of another kind.
        """
        if str(name) == "world":
            kept = {key: options[key] for key in ("dtype", "torch_dtype") if key in options}
            if len(kept) != len(options):
                raise TypeError(f"'world' takes dtype alone, got {', '.join(options)}")
            return cls.from_pipe(load_text_to_image("world", dtype=next(iter(kept.values()), torch.float32)))
        return cls.from_pipe(DiffusionPipeline.from_pretrained(name, **options))

    @classmethod
    def from_pipe(cls, pipeline, **options) -> "PromptInterpolationPipeline":
        """Wrap a pipeline without loading or copying anything.

        Args:
            pipeline: Of a kind that is known.
            options: Components to take instead of its own.

        Raises:
            TypeError: If the pipeline is of another kind.
        """
        if isinstance(pipeline, cls):
            pipeline = pipeline.inner
        TextToImage(pipeline)  # refuses other kinds
        made = cls(**{**pipeline.components, **options})
        made._inner = pipeline if not options else type(pipeline).from_pipe(pipeline, **options)
        made.model_cpu_offload_seq = pipeline.model_cpu_offload_seq
        return made

    @property
    def inner(self) -> DiffusionPipeline:
        """The pipeline that draws, with the components this one has now."""
        for name in self._inner.components:
            value = getattr(self, name)
            if getattr(self._inner, name) is not value:
                self._inner.register_modules(**{name: value})
        return self._inner

    def save_pretrained(self, folder, **options) -> None:
        """Save the pipeline as the kind it was made from, so that any program can load it."""
        self.inner.save_pretrained(folder, **options)

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
