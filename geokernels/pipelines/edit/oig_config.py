"""How an OIG edit is guided, and how far each of its steps goes."""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

from ..._checks import require_choice, require_positive, require_share
from ...models.flow import is_flow
from ..recipe import OF_RECIPE, RecipeConfig
from .oig_recipes import FLOW, PUBLISHED, WORLD

GRADIENTS = ("exact", "released")
NEGATIVES = ("source", "empty")


@dataclass(frozen=True, kw_only=True)
class OIGConfig(RecipeConfig, guidance="guidance_scale"):
    """How an edit is guided. Defaults are those published for Stable Diffusion 1.4, unless said otherwise.

    Structure, gradient, negative and the cycle's steps are of the recipe. Rectified-flow models have one of
    their own, ``"flow"``: nobody has published OIG on them.

    Attributes:
        guidance_scale: Scale of classifier-free guidance.
        clip: Weight of the loss that moves the picture from the source text to the target text.
        structure: Weight of the loss that keeps the source's features. Published: 1, beside 0.5 and 1.5;
            the world's: 0.1.
        margin: By how much the cosine with the target text should exceed that with the source text.
        pull: How much more the distance to the source's features counts than the last step's movement.
        step: Largest length of a gradient step; see :func:`step_length`.
        gradient: ``"exact"``, the loss's gradient, in the world's recipe; or ``"released"``, through the
            U-Net's unconditional copy alone, as the published numbers were made.
        every: Guide every n-th step, beginning with the first. Ours; 1 was published.
        until: Share of the steps after which guidance ends. Ours; 1 was published.
        decode_size: Longest side of the pictures that CLIP is shown; latents of larger ones are averaged
            before they are decoded. Ours; None, which decodes whole ones, was published.
        checkpointing: Whether activations are computed again instead of kept: less memory, more time.
        cycle: Weight of the cycle of OIG+, beside the other losses and not under ``step``; see
            :class:`Cycle`. 0 leaves it out.
        cycle_steps: Steps of the sampling that closes the cycle, spread over those of the edit and at most
            as many. Published: None, which takes all; the world's: 4.
        negative: What an inverted source's edit is led away from: ``"source"``, its caption, as published;
            or ``"empty"``, no prompt, in the world's recipe, where features of both copies are compared. The
            edit of a drawn source is always led away from no prompt, and that of a model which reads its
            guidance scale from nothing.
        anchored: Whether the edit goes the source's own way, as the inversion came, and besides along what
            the velocities of the two texts differ by. Ours, of rectified flows alone, in their recipe.
        source_guidance_scale: That of the source's velocity where an edit is anchored to an inverted source.
        begin: Share of the steps, from noise on, that an anchored edit does not take: it begins where the
            source's way is then.
        blocks: Of a rectified-flow transformer, the share of its blocks, evenly spread, behind which the
            picture's tokens are compared. Ours. Of a U-Net all residual blocks are.
    """

    guidance_scale: float = 5.0
    clip: float = 0.1
    structure: float = OF_RECIPE
    margin: float = 0.5
    pull: float = 2.5
    step: float = 2.0
    gradient: str = OF_RECIPE
    every: int = 1
    until: float = 1.0
    decode_size: int | None = None
    checkpointing: bool = False
    cycle: float = 0.0
    cycle_steps: int | None = OF_RECIPE
    negative: str = OF_RECIPE
    anchored: bool = OF_RECIPE
    source_guidance_scale: float = 1.5
    begin: float = 0.0
    blocks: float = 0.5

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED, "flow": FLOW})

    def settled(self, *models: Any) -> Self:
        """See :class:`RecipeConfig`; the recipe of rectified-flow models is their own."""
        if self.recipe is None and any(is_flow(model) for model in models):
            return replace(self, recipe="flow")
        return super().settled(*models)

    def _check(self) -> None:
        require_choice("gradient", self.gradient, GRADIENTS)
        require_choice("negative", self.negative, NEGATIVES)
        numbers = ("guidance_scale", "source_guidance_scale", "clip", "structure", "margin", "pull", "step")
        for name in (*numbers, "until", "cycle"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, got {getattr(self, name)}")
        require_share("blocks", self.blocks)
        require_share("begin", self.begin)
        if not self.blocks:
            raise ValueError("blocks must be above 0; a structure of 0 leaves their loss out")
        if self.until > 1:
            raise ValueError(f"until must be a share of the steps, at most 1, got {self.until}")
        require_positive("every", self.every)
        for name in ("decode_size", "cycle_steps"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if self.cycle and not self.step:
            raise ValueError("step must be above 0 where cycle is; weights of 0 leave out the other losses")


def one_on(index: int, steps: int) -> int:
    """The number by which step ``index`` is weighed: one on, as released, and twice the last."""
    return min(index + 1, steps - 1)


def step_length(index: int, steps: int, *, largest: float = 2.0) -> float:
    """Length of the gradient step after DDIM step ``index``: it grows over a tenth of the steps, then decays.

    ``largest * (i + 1) / (N // 10)`` while ``i + 1 < N // 10``, then ``largest * 1.05 ** -(i + 1)``, where
    i is that of :func:`one_on`: at 50 steps 0.8, 1.2, 1.6, 1.567 and so on, and the last two are equal.
    """
    k, rising = one_on(index, steps) + 1, steps // 10
    return largest * k / rising if k < rising else largest * 1.05**-k
