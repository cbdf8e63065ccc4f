"""``geokernels blend``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import Seen, driven, extras, say, sentences, took
from .encoders import encoder_of
from .options import (
    ClipTokenizer,
    ClipWeights,
    ConfigFile,
    Device,
    MostMegapixels,
    Mp4,
    Out,
    Overwrite,
    Recipe,
    Resume,
    Sets,
    device_of,
    file_argument,
)
from .settings import Settings, same_names

# of which settings an option is short
OPTIONS = same_names("frames")
NOUNS = {"blend": "blending"}  # what stages are called


def blend(
    first: Annotated[Path, file_argument("The picture that the film begins with: PNG, JPEG, WebP.")],
    second: Annotated[Path, file_argument("The picture that it ends with, of any other size.")],
    out: Out,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Pictures of the film, both given ones included (default: 17).")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0,Y0:X1,Y1",
            help="Places that belong together, in pixels: x and y in FIRST, x and y in SECOND; repeat it.",
        ),
    ] = None,
    mp4: Mp4 = False,
    clip: Annotated[
        str | None,
        typer.Option("--clip", help="A CLIP whose patches are matched (default: colours and gradients)."),
    ] = None,
    clip_weights: ClipWeights = None,
    clip_tokenizer: ClipTokenizer = None,
    recipe: Recipe = None,
    config_file: ConfigFile = None,
    sets: Sets = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a film of one picture becoming another, whose places are matched by optimal transport."""
    named = {"first": "FIRST", "second": "SECOND", "fixed": "--match"}
    with sentences(blend, **named) as names, extras():
        import torch

        from ..media.clips import require_av
        from ..pipelines import Blend, BlendConfig
        from ..runs.blend import BlendFolder, BlendJob

        if mp4:
            require_av()
        if clip is None and (clip_weights or clip_tokenizer):
            option = "--clip-weights" if clip_weights else "--clip-tokenizer"
            raise ValueError(f"{option} goes with --clip, which is not given")
        pairs = [pair_of(text) for text in match or []]
        settings = Settings(
            {"blend": BlendConfig}, {"blend": OPTIONS}, built_in={"--clip": clip in (None, "world")}
        )
        config = settings.make("blend", BlendConfig.of)
        names |= settings.names
        folder = BlendFolder(out, mp4=mp4)
        where = device_of(device)
        with folder.claim(resume=resume, overwrite=overwrite, keep=[first, second]):
            pictures = [
                _read(path, option, names, most_megapixels, where)
                for path, option in ((first, "FIRST"), (second, "SECOND"))
            ]
            _require_inside(pairs, pictures)
            encoder = None
            if clip is not None:
                encoder = encoder_of(clip, clip_weights, where, tokenizer=clip_tokenizer)
            fixed = torch.tensor(pairs, dtype=torch.float32) if pairs else None
            run = Blend(*pictures, config=config, fixed=fixed, encoder=encoder, made=folder.frames())
            facts = {
                "first": first.name,
                "second": second.name,
                "mp4": mp4,
                "seeds": [],
                "encoders": [] if encoder is None else [encoder.name],
            }
            job = BlendJob(run, folder, facts=facts)
            record = driven(job, out, NOUNS, resume=resume, look=_made)
    say(took(record, out))


def pair_of(text: str) -> list[float]:
    """The four numbers of ``--match``.

    Raises:
        ValueError: If they are not.
    """
    try:
        numbers = [float(number) for point in text.split(":") for number in point.split(",")]
    except ValueError:
        numbers = []
    places = [len(point.split(",")) for point in text.split(":")]
    if places != [2, 2] or len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"--match must be X0,Y0:X1,Y1 in pixels, such as 120,80:96.5,70, got {text!r}")
    return numbers


def _require_inside(pairs: list[list[float]], pictures) -> None:
    """Refuse a place that is not in its picture."""
    for x0, y0, x1, y1 in pairs:
        for name, x, y, picture in zip(("FIRST", "SECOND"), (x0, x1), (y0, y1), pictures):
            height, width = picture.rgb.shape[1:]
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise ValueError(
                    f"--match must name places in the pictures, {name} is {width} x {height} pixels, "
                    f"got {x:g},{y:g}"
                )


def _read(path: Path, option: str, names: dict[str, str], most_megapixels: float, device: str):
    """The picture in a file, on a device; whatever is wrong with it is said of the option."""
    from ..media.pictures import Picture, read_picture

    names["picture"] = option
    picture = read_picture(path, most_megapixels=most_megapixels)
    alpha = None if picture.alpha is None else picture.alpha.to(device)
    return Picture(picture.rgb.to(device), alpha)


def _made(run, seconds: float) -> Seen:
    """How many frames of the film there are."""
    return Seen(run.index, run.steps, unit="frames")
