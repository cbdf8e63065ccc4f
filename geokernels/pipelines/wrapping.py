"""What our pipelines of diffusers share: each wraps one of diffusers' own, and has its parts."""

from typing import ClassVar, Self

from diffusers import DiffusionPipeline

from ..models.assembled import assemble_pipeline


class WrappingPipeline(DiffusionPipeline):
    """A pipeline that does something else with the parts of a text-to-picture pipeline.

    It is made by :meth:`from_pretrained` or :meth:`from_pipe`, or of parts, which is how diffusers makes a
    ``custom_pipeline``. Parts are shared with ``inner``: what moves, offloads or replaces one moves, offloads
    or replaces it in both.

    Args:
        vae: The autoencoder.
        scheduler: The scheduler.
        text_encoder: This and the next ones are parts of some kinds.
        tokenizer: See above.
        unet: See above.
        transformer: See above.
        tokenizer_2: See above.
        text_encoder_2: See above.
        tokenizer_3: See above.
        text_encoder_3: See above.
        image_encoder: See above.
        feature_extractor: See above.
        safety_checker: See above.
        kind: The class of the pipeline whose parts these are; None to tell it by them.
        force_zeros_for_empty_prompt: Of SDXL's folders.
        inner: The pipeline whose parts these are; None to make it.

    Raises:
        TypeError: If the parts are of another kind.
        ValueError: If a part is missing, or the kind must be said.
    """

    _optional_components: ClassVar[list[str]] = [
        *("text_encoder", "tokenizer", "unet", "transformer"),
        *("tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3"),
        *("image_encoder", "feature_extractor", "safety_checker"),
    ]

    def __init__(
        self,
        vae,
        scheduler,
        text_encoder=None,
        tokenizer=None,
        unet=None,
        transformer=None,
        tokenizer_2=None,
        text_encoder_2=None,
        tokenizer_3=None,
        text_encoder_3=None,
        image_encoder=None,
        feature_extractor=None,
        safety_checker=None,
        kind: str | None = None,
        force_zeros_for_empty_prompt: bool | None = None,
        inner: DiffusionPipeline | None = None,
    ):
        super().__init__()
        given = {"vae": vae, "scheduler": scheduler, "text_encoder": text_encoder, "tokenizer": tokenizer}
        given |= {"unet": unet, "transformer": transformer}
        given |= {"tokenizer_2": tokenizer_2, "text_encoder_2": text_encoder_2}
        given |= {"tokenizer_3": tokenizer_3, "text_encoder_3": text_encoder_3}
        given |= {"image_encoder": image_encoder, "feature_extractor": feature_extractor}
        given |= {"safety_checker": safety_checker}
        if inner is None:
            inner = assemble_pipeline(
                given, kind=kind, force_zeros_for_empty_prompt=force_zeros_for_empty_prompt
            )
        self._require_kind(inner)
        self.register_modules(**given)
        self._inner = inner
        self.model_cpu_offload_seq = inner.model_cpu_offload_seq

    @staticmethod
    def _require_kind(pipeline: DiffusionPipeline) -> None:
        """Refuse kinds that are not known.

        Raises:
            TypeError: If the pipeline is of one.
        """
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, name, **options) -> Self:
        """Load a folder or a model of the hub, with the options of ``DiffusionPipeline.from_pretrained``.

        Raises:
            TypeError: If the pipeline is of another kind.
        """
        return cls.from_pipe(DiffusionPipeline.from_pretrained(name, **options))

    @classmethod
    def from_pipe(cls, pipeline, **options) -> Self:
        """Wrap a loaded pipeline without copying anything.

        Args:
            pipeline: Of a kind that is known.
            options: Components to take instead of its own.

        Raises:
            TypeError: If the pipeline is of another kind.
        """
        pipeline = pipeline.inner if isinstance(pipeline, WrappingPipeline) else pipeline
        cls._require_kind(pipeline)
        if options:
            pipeline = type(pipeline).from_pipe(pipeline, **options)
        names = cls._get_signature_keys(cls)[0]
        parts = {name: part for name, part in pipeline.components.items() if name in names}
        return cls(**parts, inner=pipeline)

    @property
    def inner(self) -> DiffusionPipeline:
        """The pipeline that is wrapped, with the components this one has now."""
        own = self.components
        for name, part in self._inner.components.items():
            if name in own and own[name] is not part:
                self._inner.register_modules(**{name: own[name]})
        return self._inner

    def save_pretrained(self, folder, **options) -> None:
        """Save the pipeline as the kind it was made of, so that any program can load it."""
        self.inner.save_pretrained(folder, **options)
