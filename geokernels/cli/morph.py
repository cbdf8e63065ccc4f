"""``geokernels morph``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import driven, extras, say, sentences, took
from .encoders import encoder_of, warn_of_unknown_words
from .options import (
    Clip,
    ClipTokenizer,
    ClipWeights,
    ConfigFile,
    Device,
    From,
    Loss,
    MostMegapixels,
    Out,
    Overwrite,
    Recipe,
    Resume,
    Screen,
    Seed,
    Sets,
    Size,
    Start,
    Steps,
    Strength,
    To,
    device_of,
    file_argument,
    file_option,
)
from .settings import Settings
from .typed import chosen

METHODS = ("clip-inversion", "text2live")
NOUNS = {"morph": "morphing"}  # what stages are called
# of which settings an option is short
OPTIONS = {"loss": "loss", "steps": "steps", "strength": "strength", "working_size": "size"}
OPTIONS |= {"parametrisation": "parametrisation", "guess": "start"}


def morph(
    picture: Annotated[Path, file_argument("A PNG, JPEG or WebP picture of any size and mode.")],
    source: From,
    target: To,
    out: Out,
    method: Annotated[
        str, typer.Option(help="clip-inversion for the whole picture, text2live for an edit layer over it.")
    ] = METHODS[0],
    recipe: Recipe = None,
    loss: Loss = None,
    clip: Clip = "world",
    clip_weights: ClipWeights = None,
    clip_tokenizer: ClipTokenizer = None,
    steps: Steps = None,
    strength: Strength = None,
    size: Size = None,
    parametrisation: Annotated[
        str | None,
        typer.Option(
            help="For clip-inversion, what is optimised: layer, fourier or pixels (default: layer)."
        ),
    ] = None,
    start: Start = None,
    screen: Screen = None,
    where: Annotated[
        Path | None, file_option("For text2live: a mask, white where the edit should begin.")
    ] = None,
    config_file: ConfigFile = None,
    sets: Sets = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Change a picture from what one text describes to what another text describes."""
    with sentences(morph, working_size="--size", relevancy="--where") as names, extras():
        import torch

        from ..media.pictures import read_picture
        from ..runs.morph import MorphFolder, MorphJob

        _require_options(
            method, {"--parametrisation": parametrisation}, {"--screen": screen, "--where": where}
        )
        settings = _settings(method, clip)
        config = settings.make("morph")
        names |= settings.names
        inputs = [picture, *([] if where is None else [where])]
        folder = MorphFolder(out, layered=method == "text2live")
        with folder.claim(resume=resume, overwrite=overwrite, keep=inputs):
            settings.tell()
            original = read_picture(picture, most_megapixels=most_megapixels)
            beginning = None if where is None else _beginning(where, original.rgb, most_megapixels)
            device = device_of(device)
            encoder = encoder_of(clip, clip_weights, device, tokenizer=clip_tokenizer)
            warn_of_unknown_words([encoder], source, target, *([screen] if screen else []))
            how = {"config": config, "generator": torch.Generator().manual_seed(seed)}
            how |= chosen(relevancy=beginning, screen=screen)
            run = _run(method)(original.rgb.to(device), [encoder], source, target, **how)
            facts = {
                "method": method,
                "picture": picture.name,
                "from": source,
                "to": [target],
                "seeds": [seed],
                "encoders": [encoder.name],
            }
            job = MorphJob(run, original, folder, facts=facts)
            record = driven(job, out, NOUNS, resume=resume)
    say(took(record, out))


def _require_options(method: str, of_inversion: dict, of_layers: dict) -> None:
    """Refuse options of the other method."""
    from .._checks import require_choice

    require_choice("--method", method, METHODS)
    for option, value in (of_inversion if method == "text2live" else of_layers).items():
        if value is not None:
            raise ValueError(f"{option} is no option of --method {method}, got {value}")


def _settings(method: str, clip: str) -> Settings:
    """What was said of the settings of ``method``."""
    from ..pipelines import ClipInversionConfig, LayerEditConfig

    kind = LayerEditConfig if method == "text2live" else ClipInversionConfig
    how = {"built_in": {"--clip": clip == "world"}, "called": f"morph --method {method}"}
    return Settings({"morph": kind}, {"morph": OPTIONS}, **how)


def _beginning(where: Path, picture, most_megapixels: float):
    """The mask of ``--where``, of the picture's size."""
    from ..media.masks import read_mask

    mask = read_mask(where, what="--where", most_megapixels=most_megapixels)
    if mask.shape[1:] != picture.shape[1:]:
        (height, width), (H, W) = picture.shape[1:], mask.shape[1:]
        raise ValueError(
            f"--where must be as large as the picture, {width} x {height} pixels, {where.name} is {W} x {H}"
        )
    return mask


def _run(method: str):
    from ..pipelines import ClipInversion, LayerEdit

    return LayerEdit if method == "text2live" else ClipInversion
