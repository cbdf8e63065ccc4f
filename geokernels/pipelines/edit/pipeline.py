"""OIG as a pipeline of diffusers: made of a folder, of a model of the hub, or of a loaded pipeline."""

from collections.abc import Callable, Sequence

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from ...models.flow import latent_model
from ..wrapping import WrappingPipeline
from .flow_inversion import invert
from .oig import OIGConfig, OIGEdit, OIGResult, oig_edit
from .source import EditSource, draw_source


class OIGOutput(BaseOutput):
    """What a call returns.

    Attributes:
        images: A list of ``PIL.Image``, or ``(B, 3, H, W)`` in [0, 1].
        result: The same with the source as it comes out of its noise, and the history of the losses.
    """

    images: object
    result: OIGResult


class OIGPipeline(WrappingPipeline):
    """Edits pictures by text on their way out of noise; see :func:`geokernels.pipelines.oig_edit`.

    Made by :meth:`from_pretrained` or :meth:`from_pipe`, of Stable Diffusion 1, 2, XL or 3, or FLUX, or of
    their parts, which is how diffusers makes a ``custom_pipeline``. It shares the components of the pipeline
    it is made of, ``inner``: a LoRA that is loaded into that takes part. The CLIP that guides is no part of
    such a folder, and is given to each call.

    Example:
        >>> from geokernels.models import load_clip, load_diffusion
        >>> pipe = OIGPipeline.from_pipe(load_diffusion("world"))
        >>> source = pipe.draw(["a red circle"], steps=2, generator=torch.Generator().manual_seed(0))
        >>> pipe(source, ["a blue circle"], load_clip("world")).images[0].size
        (64, 64)
    """

    @staticmethod
    def _require_kind(pipeline) -> None:
        latent_model(pipeline)

    def invert(self, pictures: Tensor, captions: Sequence[str], **settings) -> EditSource:
        """The noise out of which ``pictures`` come; see :func:`ddim_inversion`, :func:`flow_inversion`."""
        return invert(self.inner, pictures, captions, **settings)

    def draw(self, captions: Sequence[str], *, generator: torch.Generator, **settings) -> EditSource:
        """Noise for pictures of the model's own; see :func:`draw_source`."""
        return draw_source(self.inner, captions, generator=generator, **settings)

    def __call__(
        self,
        source: EditSource,
        prompt: Sequence[str],
        encoder,
        *,
        decoder=None,
        output_type: str = "pil",
        callback: Callable[[OIGEdit], None] | None = None,
        **settings,
    ) -> OIGOutput:
        """Edit what ``source`` holds.

        Args:
            source: Of :meth:`invert` or :meth:`draw`.
            prompt: What the pictures should show.
            encoder: A CLIP, such as :func:`geokernels.models.load_clip` returns.
            decoder: A tiny autoencoder to show CLIP the picture with, or None.
            output_type: ``"pil"`` or ``"pt"``.
            callback: Called after each step with the :class:`OIGEdit`.
            settings: The fields of :class:`OIGConfig`.

        Raises:
            ValueError: See :class:`OIGEdit`.
        """
        if output_type not in ("pil", "pt"):
            raise ValueError(f"output_type must be pil or pt, got {output_type!r}")
        result = oig_edit(
            self.inner,
            encoder,
            source,
            prompt,
            config=OIGConfig(**settings),
            decoder=decoder,
            callback=callback,
        )
        images = result.pictures
        if output_type == "pil":
            images = self.numpy_to_pil(images.permute(0, 2, 3, 1).cpu().numpy())
        return OIGOutput(images=images, result=result)
