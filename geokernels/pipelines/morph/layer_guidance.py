"""What CLIP encoders say of an edit layer: laid over the picture, and alone over green."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...losses.directional import directional_loss, spherical_loss, unit_rows
from ...losses.text2live import lay_over, lay_over_screen, self_similarity, structure_loss
from ...models.clip import ClipEncoder
from ...models.clip_proportions import encode_whole, encode_words, tokens_of_whole
from ...world import describe, understand
from ..guidance.clip import Guidance
from ..guidance.photo_views import draw_photo_views, fitted, look_at_photo, resampled
from ..guidance.terms import add_terms, guiding_terms
from ..guidance.views import Views
from .crops import Crop

SCREEN = "{} over a green screen"
LONGEST = 380 / 224  # sides of what structure is read from, for one of its shorter side
APART = 2**28  # between seeds of different ends, more than steps; a seed counts by its last 32 bits


class Sample(NamedTuple):
    """One crop, how it is viewed, and what each encoder saw of the source there."""

    turn: int  # its number in the data set
    step: int  # at which it is learned from
    crop: Crop
    picture: Tensor  # (1, 3, h, w), the source there
    views: list
    features: tuple[Tensor, ...]  # (V, D) per encoder
    similarity: tuple[Tensor, ...]  # (V, N, N) per encoder, of its tokens; (1, N, N) of one view


class LayerGuidance(Guidance):
    """The guiding terms of a layered edit, for one sample of its internal data set at a time.

    Args:
        encoders: Frozen CLIP encoders.
        source: What the picture shows.
        target: What it should show.
        config: With the weights and the views of an edit.
        screen: What the edit alone shows over green; None for :func:`screen_text`.
        key: Seed of the views.

    Attributes:
        screen: What the edit alone shows over green.
        previous: Features of each sample's composite when it was last visited, one per encoder, where the
            regularisation asks for them.
    """

    def __init__(
        self,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        config,
        *,
        screen: str | None = None,
        key: int,
    ):
        super().__init__(encoders, source, target, config, key=key)
        alone = config.screen_templates
        # sentences that speak of the screen need no word of it in the prompt
        self.screen = screen or (target if alone else screen_text(encoders, source, target))
        templates = alone or config.templates
        self.screens = [encoder.encode_text([self.screen], templates)[0] for encoder in encoders]
        self.previous: dict[int, list[Tensor]] = {}

    def observe(self, picture: Tensor, views: list) -> list[tuple[Tensor, Tensor]]:
        """What each encoder sees of the source: features of its views, and its tokens' self-similarity."""
        with torch.no_grad():
            seen = self.see_with_tokens(picture, views)
            return [(features, self_similarity(tokens)) for features, tokens in seen]

    def composite_terms(self, layer: Tensor, ground: Tensor, sample: Sample) -> dict[str, Tensor]:
        """The terms of the edit laid over the picture: composition, which is two of them, and structure.

        The composite is encoded once, and every term reads that.

        Args:
            layer: Colour and opacity, ``(1, 4, h, w)`` in [0, 1].
            ground: The sample's crop of the picture, ``(1, 3, h, w)``.
            sample: What the encoders saw of it, and how.

        Returns:
            Those whose weight is not 0.

        Gradients:
            To ``layer``.
        """
        return self.terms_of_composite(lay_over(layer[:, :3], layer[:, 3:], ground), sample)

    def terms_of_composite(self, composite: Tensor, sample: Sample) -> dict[str, Tensor]:
        """The same terms, of a composite ``(1, 3, h, w)`` that is given.

        Gradients:
            To ``composite``.
        """
        seen = self.see_with_tokens(composite, sample.views)
        previous = self.previous.get(sample.turn, [None] * len(seen))
        terms: dict[str, Tensor] = {}
        for i, (features, tokens) in enumerate(seen):
            own = self._text_terms(i, features, sample.features[i], previous[i], sample.step)
            own["structure"] = structure_loss(tokens, sample.similarity[i])
            add_terms(terms, own, self.weights[i])
        if self.config.holds_on:
            self.previous[sample.turn] = [features.detach() for features, _ in seen]
        return {name: term for name, term in terms.items() if self.config.weight(name)}

    def screen_terms(self, layer: Tensor, sample: Sample) -> dict[str, Tensor]:
        """The term of the edit alone, over green, under the first ``config.screen_views`` of the views.

        Gradients:
            To ``layer``.
        """
        if not self.config.screen:
            return {}
        screened = lay_over_screen(layer[:, :3], layer[:, 3:])
        seen = self.see(screened, [self._first(views) for views in sample.views])
        terms: dict[str, Tensor] = {}
        for weight, features, texts in zip(self.weights, seen, self.screens):
            add_terms(terms, {"screen": self._far_from(features, texts, sample.step, 2)}, weight)
        return terms

    def _text_terms(
        self, i: int, features: Tensor, before: Tensor, previous: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        """What encoder ``i``'s texts ask of its features of the composite; ``before`` are the source's."""
        texts = self.texts[i]
        return {
            "spherical": self._far_from(features, texts.after, step, 0),
            **guiding_terms(features, before, previous, texts, self.config, unmoved=False),
        }

    def _far_from(self, features: Tensor, texts: Tensor, step: int, end: int) -> Tensor:
        """The angle to a text: to its mean over all templates, or the mean of those to some of them."""
        if not self.config.drawn_templates:
            return spherical_loss(features, texts)
        return spherical_loss(features, texts[self._drawn(len(texts), step, end), None]).mean()

    def _drawn(self, templates: int, step: int, end: int) -> list[int]:
        """Which templates count at a step for one end: any number of them, some perhaps twice."""
        chance = torch.Generator().manual_seed(self.key + APART * (1 + end) + step)
        count = int(torch.randint(1, templates + 1, (), generator=chance, dtype=torch.int64))
        return torch.randint(templates, (count,), generator=chance, dtype=torch.int64).tolist()

    def _first(self, views: Views) -> Views:
        return Views(*(part[: self.config.screen_views] for part in views))


class PhotoGuidance(LayerGuidance):
    """The same terms as Text2LIVE's release has them, for photographs; see ``augmentation``.

    Views keep the picture's proportions. Changes of features are those that the encoder gives, before they
    are made unit rows. Structure is read from one view that nothing was done to, with the class token.
    """

    def __init__(self, encoders: Sequence[ClipEncoder], source: str, target: str, config, **how):
        super().__init__(encoders, source, target, config, **how)
        self.words = [encode_words(encoder, [source, target], config.templates) for encoder in self.encoders]

    def draw(self, turn: int, device: torch.device) -> list:
        """The views of one turn, the same for every encoder, whatever the picture."""
        chance = torch.Generator().manual_seed(self.key + turn)
        return [draw_photo_views(self.config.views, chance)] * len(self.encoders)

    def see(self, picture: Tensor, views: list) -> list[Tensor]:
        """Features of ``picture`` under ``views``, as the encoders give them, ``(V, D)`` each."""
        fill = self.config.fill
        with self.precision(picture):
            return [
                encode_whole(e, look_at_photo(picture, v, e.image_size, fill=fill))
                for e, v in zip(self.encoders, views)
            ]

    def see_with_tokens(self, picture: Tensor, views: list) -> list[tuple[Tensor, Tensor]]:
        """The same, and the tokens of the picture itself, ``(1, N, C)``."""
        tokens = self.see_tokens(picture)
        return list(zip(self.see(picture, views), tokens))

    def see_tokens(self, picture: Tensor) -> list[Tensor]:
        """Tokens of the picture itself, the class token first, ``(1, N, C)`` each."""
        tokens = []
        with self.precision(picture):
            for encoder in self.encoders:
                side = encoder.image_size
                whole = resampled(picture, fitted(picture.shape[-2:], side, int(side * LONGEST)))
                tokens.append(tokens_of_whole(encoder, whole))
        return tokens

    def _text_terms(
        self, i: int, features: Tensor, before: Tensor, previous: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        unit = None if previous is None else unit_rows(previous)
        terms = super()._text_terms(i, unit_rows(features), unit_rows(before), unit, step)
        if self.config.loss == "directional":
            words, after = self.words[i]
            if self.config.drawn_templates:
                drawn = self._drawn(len(words), step, 1)
                words, after = words[drawn, None], after[drawn, None]
            terms["directional"] = directional_loss(features, before, words, after).mean()
        return terms

    def _first(self, views: list) -> list:
        return views[: self.config.screen_views]


def screen_text(encoders: Sequence[ClipEncoder], source: str, target: str) -> str:
    """What an edit from ``source`` to ``target`` looks like over green, in words that the encoders know.

    The world's CLIP does not know the word "screen". For it the text says that the background is green or,
    where the background is what is edited, the object. Any other text that it reads is used as it is.
    """
    if not any(encoder.unknown_words(SCREEN.format("")) for encoder in encoders):
        return SCREEN.format(target)
    before, after = understand(source), understand(target)
    if before is None or after is None:
        return target
    edited = {name for name in after if after[name] != before.get(name)}
    return describe({**after, "colour" if edited == {"background"} else "background": "green"})
