"""The terms by which CLIP encoders guide, and their settings: the same for every pipeline that they guide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._checks import is_finite, require_choice, require_positive, require_text
from ...losses.directional import directional_loss, reach_loss, spherical_loss, unit_rows
from ...losses.geodesic import geodesic_consistency_loss, geodesic_regularisation_loss
from ...models.clip import ClipEncoder
from ...models.imagenet_templates import IMAGENET_TEMPLATES
from ...ops import subspace_basis
from ...world import TEMPLATES
from ..recipe import OF_RECIPE, RecipeConfig

WORLD = MappingProxyType(
    {
        "loss": "geodesic",
        "strength": None,
        "mixed_precision": True,
        "regularisation": 1.0,
        "reach_weight": 2.0,
        "rank": 1,
        "text_rank": 1,
        "regularisation_rank": None,
        "through_bases": True,
        "chord": True,
        "templates": TEMPLATES,
    }
)
# the loss by the trial of docs/plasticity.md, and of StyleGAN-NADA and Text2LIVE as published; the geodesic
# losses as their authors run them, but for their weights, which are not published: these are ours
PUBLISHED = MappingProxyType(
    {
        "loss": "directional",
        "strength": None,
        "mixed_precision": True,
        "regularisation": 1.0,
        "reach_weight": 0.0,
        "rank": 128,
        "text_rank": 128,
        "regularisation_rank": 128,
        "through_bases": False,
        "chord": False,
        "templates": IMAGENET_TEMPLATES,
    }
)

# the term that follows the text, by the name of the loss; "consistency" is IMC
CHORD = 1.7  # weight of IMC's chord at which it pulls like the directional loss near the goal
MAIN = {"geodesic": "consistency", "directional": "directional", "global": "global", "spherical": "spherical"}


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig(RecipeConfig, reach="reach_weight"):
    """How CLIP encoders guide; the base of every pipeline's settings, which may have other defaults.

    With the geodesic loss, the term that follows the text is the inter-modality consistency (IMC), and the
    one that holds on to the previous iterate the intra-modality regularisation (IMR). Both are cosines by
    the geodesic flow kernel (GFK).

    Attributes:
        loss: ``"geodesic"`` (IMC and IMR; by the world's recipe, whose subspaces are lines, the directional
            loss with a chord), ``"directional"``, or, of the picture and the target text alone, ``"global"``
            (one minus their cosine) or ``"spherical"``.
        strength: Weight of the term that follows the text. None for the loss's own, at which all losses pull
            alike near the goal.
        regularisation: Weight of IMR (geodesic loss only). With 0 it is not computed, and stands as 0.
        reach_weight: Weight of what is still missing along the text's change. The other terms see the
            direction of the picture's change and not its length.
        share: How far the change must go, 1 being the mirror image of the source; see ``reach_loss``.
        rank: Most leading directions of the pictures' change that span its subspace; of more than two
            pictures all but two at most, as released. None for all. With 1, and gradients through the
            bases, IMC only grows with the directional loss, and is that loss under another name.
        text_rank: The same of the text's change under the templates.
        regularisation_rank: The same of the pictures themselves, for IMR.
        through_bases: Whether gradients also flow through the pictures' bases; otherwise the kernel is a
            constant, as released.
        chord: Whether the chord of IMC takes its place, which pulls as the directional loss does near the
            goal too. Ours.
        templates: Sentences around both prompts, each with one ``{}``.
        encoder_weights: One weight per encoder; None for equal ones.
        mixed_precision: Whether networks run in bfloat16 on CUDA; losses and steps never do.
    """

    loss: str = OF_RECIPE
    strength: float | None = OF_RECIPE
    regularisation: float = OF_RECIPE
    reach_weight: float = OF_RECIPE
    share: float = 0.8
    rank: int | None = OF_RECIPE
    text_rank: int | None = OF_RECIPE
    regularisation_rank: int | None = OF_RECIPE
    through_bases: bool = OF_RECIPE
    chord: bool = OF_RECIPE
    templates: tuple[str, ...] = OF_RECIPE
    encoder_weights: tuple[float, ...] | None = None
    mixed_precision: bool = OF_RECIPE

    counts: ClassVar[tuple[str, ...]] = ("rank", "text_rank", "regularisation_rank")  # above 0, or None
    amounts: ClassVar[tuple[str, ...]] = ("strength", "regularisation", "reach_weight", "share")  # 0 or above

    def _check(self) -> None:
        require_choice("loss", self.loss, tuple(MAIN))
        for name in self.counts:
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        for name in self.amounts:
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or above, got {value}")
        require_templates("templates", self.templates)

    @property
    def holds_on(self) -> bool:
        """Whether IMR counts, for which alone the previous iterate is kept and seen."""
        return self.loss == "geodesic" and self.regularisation > 0

    def weight(self, term: str) -> float:
        """Of the term called ``term`` in the sum that is minimised."""
        if term == MAIN[self.loss]:
            own = CHORD if self.loss == "geodesic" and self.chord else 1.0
            return own if self.strength is None else self.strength
        return self.reach_weight if term == "reach" else getattr(self, term)


def require_templates(name: str, templates: tuple[str, ...]) -> None:
    """Refuse sentences that do not each have one place for a prompt."""
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise ValueError(f"{name} must each contain {{}} once, got {templates!r}")


class Texts(NamedTuple):
    """What one encoder makes of both prompts; constant over a run."""

    before: Tensor  # (T, D)
    after: Tensor  # (T, D)
    basis: Tensor  # (D, L), of their change


def read_texts(encoder: ClipEncoder, source: str, target: str, config: GuidanceConfig) -> Texts:
    """Encode both prompts under the templates."""
    before, after = encoder.encode_text([source, target], config.templates).detach().float()
    basis = subspace_basis(unit_rows(after - before), _rank(config.text_rank, before)).basis
    return Texts(before, after, basis)


def require_guides(
    encoders: Sequence[ClipEncoder], source: str, target: str, config: GuidanceConfig
) -> tuple[float, ...]:
    """Refuse encoders and prompts that cannot guide; the encoders' weights, with a sum of 1.

    Raises:
        ValueError: If there are no encoders, one only evaluates, their weights do not fit, or the prompts
            are empty or equal.
    """
    if not isinstance(encoders, Sequence):
        raise TypeError(f"encoders must be a list of CLIP encoders, got {type(encoders).__name__}")
    if not encoders:
        raise ValueError("encoders must hold at least one CLIP encoder, got none")
    for encoder in encoders:
        # at once: a search without gradients would be guided by it all the same
        if not encoder.guides:
            raise ValueError(f"encoders must be models that guide, got {encoder.name!r}, which evaluates")
    for name, prompt in [("source", source), ("target", target)]:
        if not isinstance(prompt, str):
            raise TypeError(f"{name} must be a text, got {type(prompt).__name__}")
        require_text(name, prompt)
        if not prompt.strip():
            raise ValueError(f"{name} must be a text, got {prompt!r}")
    if source.strip() == target.strip():
        raise ValueError(f"target must differ from source, got {target!r} for both")
    weights = config.encoder_weights
    if weights and (len(weights) != len(encoders) or min(weights) < 0 or not sum(weights)):
        raise ValueError(
            f"encoder_weights must be {len(encoders)} numbers, none negative, not all 0, got {weights}"
        )
    shares = torch.tensor(weights or [1.0] * len(encoders), dtype=torch.float32)
    return tuple((shares / shares.sum()).tolist())


def guiding_terms(
    current: Tensor,
    source: Tensor,
    previous: Tensor | None,
    texts: Texts,
    config: GuidanceConfig,
    *,
    unmoved: bool,
) -> dict[str, Tensor]:
    """The terms of one encoder for pictures, or views of one picture, ``(B, D)``.

    Args:
        current: Features of the pictures as they are now.
        source: Of the same pictures before any change.
        previous: Of the same pictures at the step before; None where there was none.
        texts: From :func:`read_texts`.
        config: The settings.
        unmoved: Whether ``current`` is ``source``, where no cosine of a change has a gradient.

    Gradients:
        To ``current``.

    Raises:
        FloatingPointError: If ``current`` is not finite, as far as values can be read.
    """
    if not is_finite(current):
        raise FloatingPointError("the features of the pictures are not finite; lower the learning rate")
    before, after = texts.before, texts.after
    if config.loss == "global":
        main = 1 - (current @ unit_rows(after.mean(0))).mean()
    elif config.loss == "spherical":
        main = spherical_loss(current, after)
    elif unmoved:
        # the limit of the cosine's gradient for a first small move, up to its length
        main = 1 - ((current - source) @ unit_rows((after - before).mean(0))).mean()
    elif config.loss == "directional":
        main = directional_loss(current, source, before, after)
    else:
        main = geodesic_consistency_loss(
            current,
            source,
            before,
            after,
            text_basis=texts.basis,
            rank=_rank(config.rank, current),
            through_bases=config.through_bases,
        )
        main = _chord(main) if config.chord else main
    terms = {MAIN[config.loss]: main}
    if config.loss == "geodesic":
        terms["regularisation"] = current.new_zeros(())  # IMR
        if previous is not None and config.holds_on:
            rank = _rank(config.regularisation_rank, current)
            terms["regularisation"] = geodesic_regularisation_loss(
                current, previous, rank=rank, through_bases=config.through_bases
            )
    return {**terms, "reach": reach_loss(current, source, before, after, share=config.share)}


def add_terms(total: dict[str, Tensor], terms: dict[str, Tensor], weight: float) -> None:
    """Add an encoder's ``terms`` to the ``total`` over all encoders, in place."""
    for name, term in terms.items():
        total[name] = total.get(name, 0) + weight * term


def _rank(wanted: int | None, rows: Tensor) -> int | None:
    """At most two fewer than there are rows, and of up to two rows all, as released."""
    if wanted is None:
        return None
    B, D = rows.shape[-2:]
    return min(wanted, B - 2 if B > 2 else B, D)


def _chord(loss: Tensor) -> Tensor:
    r"""The distance between unit vectors whose cosine is ``1 - loss``.

    At an angle $\theta$ between picture and text the consistency loss is about $\theta^4 / 24$: at 45 degrees
    it is down to 0.018, and whatever else is weighed outweighs it. Its chord is about
    $\theta^2 / \sqrt{12}$, which pulls like the directional loss all the way.
    """
    moved = loss > 1e-10
    # select before the root, whose slope at 0 is infinite
    return torch.where(moved, (2 * torch.where(moved, loss, 1)).sqrt(), 0)
