"""What CLIP encoders say of an edit layer: laid over the picture, and alone over green."""

from collections.abc import Sequence

from torch import Tensor

from ...losses.directional import spherical_loss
from ...losses.text2live import lay_over, lay_over_screen, structure_loss
from ...models.clip import ClipEncoder
from ...world import describe, understand
from ..guidance.clip import Guidance
from ..guidance.terms import add_terms, guiding_terms
from ..guidance.views import Views
from .internal_dataset import Sample

SCREEN = "{} over a green screen"


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
        self.screen = screen or screen_text(encoders, source, target)
        self.screens = [encoder.encode_text([self.screen], config.templates)[0] for encoder in encoders]
        self.previous: dict[int, list[Tensor]] = {}

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
            texts, before = self.texts[i], sample.features[i]
            own = {
                "spherical": spherical_loss(features, texts.after),
                **guiding_terms(features, before, previous[i], texts, self.config, unmoved=False),
                "structure": structure_loss(tokens, sample.similarity[i]),
            }
            add_terms(terms, own, self.weights[i])
        if self.config.weight("regularisation"):
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
        count = self.config.screen_views
        seen = self.see(screened, [Views(*(part[:count] for part in views)) for views in sample.views])
        terms: dict[str, Tensor] = {}
        for weight, features, text in zip(self.weights, seen, self.screens):
            add_terms(terms, {"screen": spherical_loss(features, text)}, weight)
        return terms


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
