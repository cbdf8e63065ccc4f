"""What ``geokernels eval`` measures by: the models that its options name, and its conventions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .encoders import encoder_of
from .kept import kept
from .settings import Settings

if TYPE_CHECKING:
    from ..metrics import Conventions
    from ..runs.measures import Measures

SECTION = "edits"  # of the settings: the stage under which run.json has them
OPTIONS = {"clip": "judge_clip"}  # of which setting an option is short
# as timm calls what DINO's authors call otherwise
ARCHITECTURES = {
    "dino_vitb8": "vit_base_patch8_224",
    "dino_vits8": "vit_small_patch8_224",
    "dino_vitb16": "vit_base_patch16_224",
    "dino_vits16": "vit_small_patch16_224",
}


def conventions_of(
    settings: Settings, *, clip: str, dino: Path | None, lpips: Path | None, rendered: bool
) -> Conventions:
    """The conventions that were asked for, and the published ones where nobody says.

    Where there are no weights of DINO or of LPIPS' network, what the CLIP that measures computes stands in.

    Args:
        settings: Of the command.
        clip: Name of the CLIP that measures, where nobody names another.
        dino: Weights of DINO, if there are any.
        lpips: Weights of LPIPS' network, if there are any.
        rendered: Whether all edits are of the rendered world, which has conventions of its own.

    Raises:
        ValueError: If settings are none, or need weights that are not given, or leave given weights unused.
    """
    from ..metrics.conventions import FEATURES, TOKENS, WORLD

    defaults: dict = {"clip": clip, **(WORLD if rendered else {})}
    said = settings.names_of(SECTION)
    for name, own, option, weights in (
        ("structure", TOKENS, "--dino-weights", dino),
        ("perceptual", FEATURES, "--lpips-weights", lpips),
    ):
        asked = settings.values(SECTION).get(name)
        if weights is None:
            if asked not in (None, own):
                raise ValueError(f"{said[name]} {asked} needs {option}, got none")
            defaults[name] = own
        elif asked == own:
            raise ValueError(f"{said[name]} {own} leaves {option} unused, got {weights}")
    return settings.make(SECTION, **defaults)


def measures_of(
    conventions: Conventions, encoder, *, dino: Path | None, lpips: Path | None, device: str
) -> Measures:
    """What edits are measured by, with the models that the conventions name."""
    from ..runs.measures import Measures

    names = {
        "structure": f"the tokens of {encoder.name}",
        "perceptual": f"feature distance of {encoder.name}",
    }

    def tokens(pictures):
        return encoder.encode_image_and_tokens(pictures)[1]

    if dino is not None:
        tokens = _dino(conventions, dino, device)
        names["structure"] = f"DINO's keys ({conventions.structure})"
    if lpips is not None:
        from ..models.perceptual import load_lpips

        distance = load_lpips(conventions.perceptual, lpips, device=device, called="--lpips-weights")
        names["perceptual"] = f"LPIPS ({conventions.perceptual})"
    else:
        from ..losses import feature_distance

        def distance(pictures, others):
            return feature_distance(encoder.image_features(pictures), encoder.image_features(others))

    conventions = replace(conventions, clip=encoder.name)
    return Measures(encoder, tokens, distance, names, conventions=conventions, device=device)


def judge_of(guide, judge: str | None, weights: Path | None, tokenizer: Path | None, device: str):
    """The CLIP that measures: that of the options, or the world's other one, or the one that guides."""
    from ..models import load_clip
    from ..models.clip import EVALUATION

    if judge is not None:
        return encoder_of(judge, weights, device, tokenizer=tokenizer, option="--judge-clip")
    for option, value in (("--judge-clip-weights", weights), ("--judge-clip-tokenizer", tokenizer)):
        if value is not None:
            raise ValueError(f"{option} goes with --judge-clip, got {value} without it")
    return kept(load_clip, EVALUATION, device=device) if guide.name == "world" else guide


def _dino(conventions: Conventions, weights: Path, device: str):
    from ..models.dino import load_dino

    architecture = ARCHITECTURES[conventions.structure]
    side = conventions.structure_size
    return load_dino(
        weights,
        architecture=architecture,
        side=None if architecture.endswith(f"_{side}") else side,
        layer=conventions.structure_layer,
        scale=conventions.structure_scale,
        antialias=conventions.structure_antialias,
        class_token=conventions.structure_class_token,
        device=device,
        called="--dino-weights",
    )
