"""Outlines that are no shape: what the CLIP must tell from the eight that have names.

Having seen nothing but the eight, a CLIP takes many an outline for the one that a caption names, and a search
for the outline it likes best ends far from any shape. So it is shown, beside the shape that a caption names,
the outlines it is fondest of among random ones and among variations of those that fooled it before.
"""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from geokernels.pipelines.start.silhouettes import DIMENSIONS, draw_silhouettes, signed_distance
from geokernels.world import ATTRIBUTES, TEMPLATES, Scenes, edit, object_frame, render, sample_scenes
from geokernels.world.matching import fit_outline
from geokernels.world.renderer import coverage

from .clip_data import Captions, augment, pair_captions, values_of
from .clip_losses import encode_pictures

SHAPE = tuple(ATTRIBUTES).index("shape")
POOL = 32  # outlines kept a shape
FRESH, VARIED = 3, 5  # candidates a scene: new ones, and variations of the pool's
SHOWN = 2  # of which so many are used
ALIKE = 0.75  # overlap with the named shape from which an outline is no counterexample


def new_pool() -> Tensor:
    """Outlines to begin with, ``(shapes, POOL, DIMENSIONS)``."""
    count = len(ATTRIBUTES["shape"]) * POOL
    drawn = draw_silhouettes(count, generator=torch.Generator().manual_seed(0))
    return drawn.view(-1, POOL, DIMENSIONS)


def outline_terms(
    model: CLIP, scale: Tensor, captions: Captions, encode, pool: Tensor, n: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Losses by which a caption, and a change of caption, must prefer its shape to outlines that are none.

    Args:
        model: Its image tower is trained.
        scale: Of the logits.
        captions: All of them.
        encode: From rows of ``captions`` to unit text features.
        pool: Outlines that fooled the model before, ``(shapes, POOL, DIMENSIONS)``; renewed in place.
        n: How many scenes, each with ``SHOWN`` counterexamples.
        generator: Source of chance.
    """
    first = sample_scenes(n, generator=generator)
    second = edit(first, "shape", generator=generator)
    which = torch.full((n,), SHAPE)
    said = pair_captions(values_of(first), values_of(second), which, generator=generator)
    template = torch.randint(len(TEMPLATES), (n,), generator=generator)
    before, after = encode(captions.rows(template.expand(2, n), said))

    right = torch.cat([render(first), render(second)])
    wrong = hardest(model, first, second, after - before, right[:n], pool, generator)
    features = encode_pictures(model, augment(torch.cat([right, wrong.flatten(0, 1)]), generator=generator))
    image = F.normalize(features, dim=-1)
    start, choices = image[:n], image[n:].view(1 + SHOWN, n, -1)
    wanted = torch.zeros(n, dtype=torch.long)
    fit = scale * torch.einsum("cnd,nd->nc", choices, after)
    along = torch.einsum(
        "cnd,nd->nc", F.normalize(choices - start, dim=-1), F.normalize(after - before, dim=-1)
    )
    return {
        "outline": 0.5 * F.cross_entropy(fit, wanted),
        "outline_direction": 0.5 * F.cross_entropy(10 * along, wanted),
    }


@torch.no_grad()
def hardest(
    model: CLIP,
    first: Scenes,
    second: Scenes,
    asked: Tensor,
    source: Tensor,
    pool: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The outlines that the model likes most of those unlike ``second``'s shapes, ``(SHOWN, n, 3, H, W)``."""
    n, many = len(first), FRESH + VARIED
    training = model.training
    model.eval()
    chosen = torch.randint(POOL, (VARIED, n), generator=generator)
    old = pool[second.shape, chosen].flatten(0, 1)
    noise = 0.3 * torch.randn(old.shape, generator=generator) * pool.flatten(0, 1).std(0)
    outlines = torch.cat([draw_silhouettes(FRESH * n, generator=generator), old + noise])
    scenes = second[torch.arange(n).repeat(many)]
    mask = coverage(scenes, signed_distance(outlines, *object_frame(scenes)))
    fitted = fit_outline(mask)
    named = (fitted.shape == scenes.shape) & (fitted.likeness >= ALIKE)
    pictures = render(scenes, mask=mask)

    start = F.normalize(encode_pictures(model, source), dim=-1)
    features = F.normalize(encode_pictures(model, pictures), dim=-1).view(many, n, -1)
    liking = F.cosine_similarity(features - start, asked, dim=-1)
    liking.masked_fill_(named.view(many, n), -2)
    best = liking.topk(SHOWN, 0).indices
    rows = torch.arange(n)
    spare = torch.randint(POOL, (SHOWN, n), generator=generator)
    pool[second.shape, spare] = outlines.view(many, n, -1)[best, rows]
    model.train(training)
    return pictures.view(many, n, *pictures.shape[1:])[best, rows]
