"""Text2LIVE on video in the original's pattern of work: the yardstick of ``benchmarks.cost.video``.

Written from the description of the method, not from its code. What distinguishes the pattern: how every frame
sees the atlas is kept for the whole clip, and all edited frames are made before any is written; every loss
draws views of its own, so that a step encodes the composite twice, the source anew, and the edit over green
under as many views as the rest; and all of it is one graph until the one call of backward.
"""

import torch
from torch import Tensor

from geokernels.losses import (
    composition_loss,
    lay_over_screen,
    self_similarity,
    sparsity_loss,
    spherical_loss,
    structure_loss,
)
from geokernels.models.atlas import LayeredAtlas
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines import Footage, VideoEditConfig
from geokernels.pipelines.guidance.views import Views, draw_views, look
from geokernels.pipelines.morph.edit_network import EditNetwork, as_layer
from geokernels.pipelines.morph.layer_descent import LEARNING_RATE
from geokernels.pipelines.video.atlas_view import FrameView, resize_view, view_frame


class OriginalVideoPattern:
    """An edit of the foreground with the directional loss, step by step.

    Args:
        footage: The clip.
        atlas: Of it.
        source: The atlas as a picture, ``(1, 3, h, w)``.
        encoder: A frozen CLIP.
        texts: What the frames show, what they shall show, and what the edit alone shows over green.
        config: The settings.
        generator: Source of random numbers.
    """

    def __init__(
        self,
        footage: Footage,
        atlas: LayeredAtlas,
        source: Tensor,
        encoder: ClipEncoder,
        texts: tuple[str, str, str],
        *,
        config: VideoEditConfig,
        generator: torch.Generator,
    ):
        self.config, self.encoder, self.chance, self.source = config, encoder, generator, source
        self.kept = [view_frame(atlas, 0, index, footage.frame(index)) for index in range(len(footage))]
        self.before, self.after, self.alone = encoder.encode_text(list(texts), config.templates)
        self.network = EditNetwork(config.widths, generator=generator).to(source)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)

    def views(self) -> Views:
        """Fresh ones, at every call."""
        names = ("scale", "shift", "jitter", "noise", "blurred")
        how = {name: getattr(self.config, name) for name in names}
        drawn = draw_views(self.config.views, self.encoder.image_size, **how, generator=self.chance)
        return Views(*(part.to(self.source.device) for part in drawn))

    def moment(self) -> FrameView:
        """A random frame."""
        index = int(torch.randint(len(self.kept), (), generator=self.chance))
        return resize_view(self.kept[index], self.config.working_size)

    def step(self) -> None:
        """One Adam step on one frame."""
        config, encoder, view = self.config, self.encoder, self.moment()
        shown = view.shown(as_layer(self.network(self.source)))
        composite = view.composite(shown)
        with torch.no_grad():
            features, tokens = encoder.encode_image_and_tokens(look(view.frame, self.views()))
        composed = encoder.encode_image(look(composite, self.views()))
        _, structured = encoder.encode_image_and_tokens(look(composite, self.views()))
        screened = encoder.encode_image(look(lay_over_screen(shown[:, :3], shown[:, 3:]), self.views()))
        loss = (
            config.spherical * composition_loss(composed, features, self.before, self.after)
            + config.structure * structure_loss(structured, self_similarity(tokens))
            + config.screen * spherical_loss(screened, self.alone)
            + config.sparsity * sparsity_loss(shown[:, 3:])
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def frames(self) -> Tensor:
        """Every edited frame, ``(T, 3, H, W)``."""
        layer = as_layer(self.network(self.source))
        return torch.cat([view.composite(view.shown(layer)) for view in self.kept])
