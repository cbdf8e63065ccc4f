"""The settings of an adaptation."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from ..._checks import require_choice
from ..guidance import terms
from ..guidance.terms import GuidanceConfig
from ..recipe import OF_RECIPE
from .layer_choice import PARTS, TEXTS

NOISE = ("fixed", "fresh")
SCHEDULES = ("cosine", "constant")
LEARNING_RATES = {"modulation": 0.003, "layers": 0.0016}

WORLD = MappingProxyType(  # ours, tuned on adaptations of the rendered world
    {
        **terms.WORLD,
        "reach_weight": 1.0,
        "train": "modulation",
        "guess": 0.2,
        "steps": 20,
        "schedule": "cosine",
        "batch": 4,
        "pool": 64,
        "noise": "fixed",
        "mixing": 0.0,
        "clamp": True,
        "choose_every": 10,
        "choose_by": "templates",
    }
)
# Gal et al., "StyleGAN-NADA" (2022), and rinongal/StyleGAN-nada: ``ZSSGAN/train.py`` and ``model/ZSSGAN.py``,
# with what ``stylegan_nada.ipynb`` sets to change shapes ("improve shape")
PUBLISHED = MappingProxyType(
    {
        **terms.PUBLISHED,
        "mixed_precision": False,  # the generator in float32
        "train": "layers",
        "guess": 2.0,  # none is searched
        "steps": 300,  # the example of train.py; the notebook has 150, argparse 1,000
        "schedule": "constant",
        "batch": 2,  # argparse has 16
        "pool": None,
        "noise": "fresh",
        "mixing": 0.9,  # argparse has 0
        "clamp": False,
        "choose_every": 1,
        "choose_by": "text",
    }
)


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(GuidanceConfig):
    """How a network is guided, which of its layers learn, and how fast.

    Here the pictures of :class:`GuidanceConfig` are those of a batch of latents.

    Attributes:
        perceptual: Weight of the distance to the frozen picture in the encoders' feature maps.
        train: Of a chosen layer, its ``"modulation"``, by which it reads the style code, or the whole
            ``"layers"``.
        guess: Least cosine, between the change that the best map of style codes makes and the change of the
            text, for the adaptation to start from that map. Above 1 none is searched, and the adaptation
            starts from the network as it is.
        searched: Samples among which those that look as asked are searched.
        carried: Share of the samples that are taken to look as asked.
        steps: Adam steps.
        learning_rate: Of the first step. None for that of ``train``.
        schedule: Of the learning rate: ``"cosine"``, which ends at 0, or ``"constant"``.
        batch: Latents per step.
        pool: Latents that are visited in turn, whose frozen pictures are drawn and encoded once. None for
            fresh ones every step, with their frozen pictures; none then comes again, and the regularisation
            of the geodesic loss is 0.
        noise: Of the network's convolutions: ``"fixed"`` for that of its file, or ``"fresh"`` for every
            picture that is drawn, the frozen ones and those that choose the layers included.
        mixing: Share of the steps whose pictures take the finer rows of W+, from a random row on, from other
            latents; above 0 only where ``pool`` is None.
        clamp: Whether pictures are cut off at black and white before CLIP sees them.
        layers: How many layers learn at a time; None for StyleGAN-NADA's number.
        choose_every: Steps for which the layers are kept before they are chosen again.
        choose_from: Latents by which they are chosen.
        choose_by: Whether the target text stands in the ``"templates"`` there, or is the bare ``"text"``.
        chunk: Pictures that are computed at once. Fewer than ``batch`` take less memory, and are drawn twice.
        truncation: Of the latents' codes; 1 is none.
    """

    perceptual: float = 0.0
    train: str = OF_RECIPE
    guess: float = OF_RECIPE
    searched: int = 512
    carried: float = 0.08
    steps: int = OF_RECIPE
    learning_rate: float | None = None
    schedule: str = OF_RECIPE
    batch: int = OF_RECIPE
    pool: int | None = OF_RECIPE
    noise: str = OF_RECIPE
    mixing: float = OF_RECIPE
    clamp: bool = OF_RECIPE
    layers: int | None = None
    choose_every: int = OF_RECIPE
    choose_from: int = 8
    choose_by: str = OF_RECIPE
    chunk: int = 4
    truncation: float = 1.0

    recipes = MappingProxyType({"world": WORLD, "published": PUBLISHED})
    counts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.counts,
        *("carried", "steps", "learning_rate", "batch", "pool", "layers"),
        *("choose_every", "choose_from", "chunk"),
    )
    amounts: ClassVar[tuple[str, ...]] = (
        *GuidanceConfig.amounts,
        *("perceptual", "guess", "mixing", "truncation"),
    )

    def _check(self) -> None:
        super()._check()
        require_choice("train", self.train, PARTS)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("noise", self.noise, NOISE)
        require_choice("choose_by", self.choose_by, TEXTS)
        if self.pool is not None and self.batch > self.pool:
            raise ValueError(f"batch must be at most pool, {self.pool}, got {self.batch}")
        for name in ("carried", "mixing"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be at most 1, got {getattr(self, name)}")
        if self.mixing and self.pool is not None:
            raise ValueError(
                f"mixing must be 0 for latents of a pool, got {self.mixing} with pool {self.pool}"
            )
