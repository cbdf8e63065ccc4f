"""Text2LIVE in the original's pattern of work: the yardstick of ``benchmarks.cost.morph``.

Written from the description of the method, not from its code. What distinguishes the pattern: every loss
draws views of its own, so that a step encodes the composite twice, the source anew, and the edit over green
under as many views as the rest; and all of it is one graph until the one call of backward.
"""

import math

import torch
from torch import Tensor

from geokernels.losses import (
    composition_loss,
    directional_loss,
    lay_over,
    lay_over_screen,
    self_similarity,
    sparsity_loss,
    spherical_loss,
    structure_loss,
)
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines import LayerEditConfig
from geokernels.pipelines.descent import madgrad
from geokernels.pipelines.guidance.photo_views import draw_photo_views
from geokernels.pipelines.guidance.views import Views, draw_views, look
from geokernels.pipelines.morph.crops import draw_crop, draw_crops
from geokernels.pipelines.morph.edit_network import EditNetwork, as_layer
from geokernels.pipelines.morph.layer_descent import LEARNING_RATE
from geokernels.pipelines.morph.layer_guidance import PhotoGuidance
from geokernels.pipelines.morph.skip_network import SkipNetwork


class OriginalPattern:
    """An edit with the directional loss, step by step.

    Args:
        picture: ``(3, H, W)`` in [0, 1].
        encoder: A frozen CLIP.
        source: What the picture shows.
        target: What it shall show.
        screen: What the edit alone shows, over green.
        config: The settings, of which ``screen_views`` and whatever concerns a first guess are not looked at.
        generator: Source of random numbers.
    """

    def __init__(
        self,
        picture: Tensor,
        encoder: ClipEncoder,
        source: str,
        target: str,
        *,
        screen: str,
        config: LayerEditConfig,
        generator: torch.Generator,
    ):
        self.config, self.encoder, self.chance = config, encoder, generator
        self.source = picture[None]
        self.before, self.after, self.alone = encoder.encode_text([source, target, screen], config.templates)
        self.network = EditNetwork(config.widths, generator=generator).to(picture.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.index = 0

    def views(self) -> Views:
        """Fresh ones, at every call."""
        names = ("scale", "shift", "jitter", "noise", "blurred")
        how = {name: getattr(self.config, name) for name in names}
        drawn = draw_views(self.config.views, self.encoder.image_size, **how, generator=self.chance)
        return Views(*(part.to(self.source.device) for part in drawn))

    def step(self) -> None:
        """One Adam step on one fresh crop."""
        config, encoder = self.config, self.encoder
        _, crop = draw_crops(
            2, self.source.shape[-2:], share=config.crop, mirrored=config.mirrored, generator=self.chance
        )
        source = crop.take(self.source)
        layer = as_layer(self.network(source))
        colour, opacity = layer[:, :3], layer[:, 3:]
        composite = lay_over(colour, opacity, source)

        with torch.no_grad():
            features, tokens = encoder.encode_image_and_tokens(look(source, self.views()))
        composed = encoder.encode_image(look(composite, self.views()))
        _, structured = encoder.encode_image_and_tokens(look(composite, self.views()))
        screened = encoder.encode_image(look(lay_over_screen(colour, opacity), self.views()))
        loss = (
            config.spherical * composition_loss(composed, features, self.before, self.after)
            + config.structure * structure_loss(structured, self_similarity(tokens))
            + config.screen * spherical_loss(screened, self.alone)
            + config.sparsity * sparsity_loss(opacity)
        )
        self.optimizer.param_groups[0]["lr"] = (
            LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * self.index / config.steps))
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.index += 1


class ReleasedPattern:
    """The same pattern with the published recipe: the released network, optimiser, views and templates.

    Args:
        picture: ``(3, H, W)`` in [0, 1].
        encoder: A frozen CLIP.
        source: What the picture shows.
        target: What it shall show.
        screen: What the edit alone shows.
        config: The published recipe; a step that learns from a crop alone is taken.
        generator: Source of random numbers.
    """

    def __init__(
        self,
        picture: Tensor,
        encoder: ClipEncoder,
        source: str,
        target: str,
        *,
        screen: str,
        config: LayerEditConfig,
        generator: torch.Generator,
    ):
        self.config, self.chance, self.index = config, generator, 0
        self.source = picture[None]
        self.guidance = PhotoGuidance([encoder], source, target, config, screen=screen, key=0)
        self.network = SkipNetwork(config.widths, generator=generator).to(picture.device)
        self.optimizer = madgrad()(self.network.parameters(), lr=config.learning_rate, weight_decay=0.01)

    def see(self, picture: Tensor) -> Tensor:
        """Features under fresh views."""
        return self.guidance.see(picture, [draw_photo_views(self.config.views, self.chance)])[0]

    def tokens(self, picture: Tensor) -> Tensor:
        """Tokens of the picture itself."""
        return self.guidance.see_tokens(picture)[0]

    def step(self) -> None:
        """One step on one fresh crop."""
        config, guidance = self.config, self.guidance
        how = {"zoom": config.zoom, "share": config.crop}
        how |= {"mirrored": config.mirrored, "tinted": config.tinted}
        source = draw_crop(self.source.shape[-2:], **how, generator=self.chance).show(self.source)
        layer = self.network.layer(self.network(source))
        colour, opacity = layer[:, :3], layer[:, 3:]
        composite = lay_over(colour, opacity, source)
        with torch.no_grad():
            features, similarity = self.see(source), self_similarity(self.tokens(source))
        (before, after), (alone,) = guidance.words[0], guidance.screens
        loss = (
            spherical_loss(self.see(composite), after)
            + directional_loss(self.see(composite), features, before, after)
            + config.structure * structure_loss(self.tokens(composite), similarity)
            + config.screen * spherical_loss(self.see(lay_over_screen(colour, opacity)), alone)
            + config.sparsity * sparsity_loss(opacity)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.index += 1
