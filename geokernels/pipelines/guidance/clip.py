"""What CLIP encoders see of one picture under shared views, and the terms that follow from it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ...losses.directional import unit_rows
from ...losses.perceptual import feature_distance
from ...models.clip import ClipEncoder
from .terms import add_terms, guiding_terms, read_texts, require_guides
from .views import Views, draw_views, look


class Likeness(NamedTuple):
    """What pictures share with what is asked; cosines, ``(n,)``."""

    along: Tensor  # of the change of the pictures with that of the texts
    target: Tensor  # of the pictures with the target text


class Guidance:
    """The guiding terms of a run, step by step.

    Views are drawn every ``config.hold`` steps, keyed by the step, and shown to the source, the previous and
    the current picture alike. Only on a draw are the source and, where IMR asks for it, the previous iterate
    encoded again; in between, the source's features are kept and the previous iterate's are those of the last
    step.
    """

    def __init__(self, encoders: Sequence[ClipEncoder], source: str, target: str, config, *, key: int):
        self.weights = require_guides(encoders, source, target, config)
        self.encoders, self.config, self.key = tuple(encoders), config, key
        self.texts = [read_texts(encoder, source, target, config) for encoder in self.encoders]
        self.views: list[Views] = []
        self.source_maps: list[list[Tensor]] | None = None
        self.kept: dict = {"picture": None, "features": None, "source_features": None}

    def begin_step(self, index: int, source: Tensor) -> None:
        """Draw new views when it is time."""
        if index % self.config.hold:
            return
        self.views = self.draw(index // self.config.hold, source.device)
        with torch.no_grad():
            self.kept["source_features"] = self.see(source, self.views)
            if self.config.holds_on and self.kept["picture"] is not None:
                self.kept["features"] = self.see(self.kept["picture"], self.views)

    def terms(self, picture: Tensor, *, unmoved: bool) -> dict[str, Tensor]:
        """The terms for ``picture``, averaged over the encoders; ``picture`` becomes the previous iterate.

        Args:
            picture: ``(1, 3, h, w)``.
            unmoved: Whether it is the source itself, where no cosine has a gradient.
        """
        features = self.see(picture, self.views)
        terms: dict[str, Tensor] = {}
        for i, weight in enumerate(self.weights):
            previous = self.kept["features"][i] if self.kept["features"] else None
            sources = self.kept["source_features"][i]
            own = guiding_terms(features[i], sources, previous, self.texts[i], self.config, unmoved=unmoved)
            add_terms(terms, own, weight)
        self.kept.update(picture=picture.detach(), features=[f.detach() for f in features])
        return terms

    @torch.no_grad()
    def likeness(self, pictures: Tensor, source: Tensor) -> Likeness:
        """How nearly whole pictures have become what the text asks, averaged over the encoders.

        For one view and one direction the geodesic cosine only grows with the plain one, so that this is
        the plain one, whichever loss guides.

        Args:
            pictures: ``(n, 3, h, w)``.
            source: ``(1, 3, h, w)``.
        """
        along, target = torch.zeros((2, len(pictures)), device=pictures.device, dtype=torch.float32)
        for weight, encoder, texts in zip(self.weights, self.encoders, self.texts):
            seen = encoder.encode_image(torch.cat([source, pictures])).float()
            asked = unit_rows((texts.after - texts.before).mean(0))
            along += weight * (unit_rows(seen[1:] - seen[:1]) @ asked)
            target += weight * (unit_rows(seen[1:]) @ unit_rows(texts.after.mean(0)))
        return Likeness(along, target)

    def feature_distance(self, picture: Tensor, source: Tensor) -> Tensor:
        """Distance of two pictures in the encoders' feature maps, averaged over the encoders."""
        if self.source_maps is None:
            with torch.no_grad():
                self.source_maps = [encoder.image_features(source) for encoder in self.encoders]
        distances = [
            weight * feature_distance(encoder.image_features(picture), maps).mean()
            for weight, encoder, maps in zip(self.weights, self.encoders, self.source_maps)
        ]
        return torch.stack(distances).sum()

    def see_with_tokens(self, picture: Tensor, views: Sequence[Views]) -> list[tuple[Tensor, Tensor]]:
        """Features and tokens of ``picture`` under ``views``, in one pass per encoder; float32."""
        with self.precision(picture):
            return [e.encode_image_and_tokens(look(picture, v)) for e, v in zip(self.encoders, views)]

    def see(self, picture: Tensor, views: Sequence[Views]) -> list[Tensor]:
        """Features of ``picture`` under ``views``, ``(views, D)`` float32, one per encoder."""
        with self.precision(picture):
            return [e.encode_image(look(picture, v)).float() for e, v in zip(self.encoders, views)]

    def load(self, kept: dict, index: int, device: torch.device) -> None:
        """Continue at step ``index`` with what another run had kept."""
        self.kept = dict(kept)
        if index % self.config.hold:
            self.views = self.draw(index // self.config.hold, device)

    def draw(self, turn: int, device: torch.device) -> list[Views]:
        """The views of one turn, one per encoder; the same whenever they are asked for."""
        config = self.config
        drawn = [
            draw_views(
                config.views,
                encoder.image_size,
                scale=config.scale,
                shift=config.shift,
                jitter=config.jitter,
                noise=config.noise,
                blurred=config.blurred,
                generator=torch.Generator().manual_seed(self.key + turn),
            )
            for encoder in self.encoders
        ]
        return [Views(*(part.to(device) for part in views)) for views in drawn]

    def precision(self, picture: Tensor) -> AbstractContextManager:
        """In what networks run: bfloat16 on CUDA, if the settings say so."""
        device = picture.device.type
        if device == "meta":  # without values, as where only shapes are counted
            return nullcontext()
        half = self.config.mixed_precision and device == "cuda"
        return torch.autocast(device, torch.bfloat16, enabled=half)
