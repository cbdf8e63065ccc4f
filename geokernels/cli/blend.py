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
    GuidanceScale,
    ModelConfig,
    MostMegapixels,
    Mp4,
    Out,
    Overwrite,
    PictureBatch,
    Precision,
    Recipe,
    Resume,
    SamplingSteps,
    Sets,
    Solver,
    Truncate,
    Variant,
    device_of,
    file_argument,
    file_option,
)
from .pipelines import is_built_in, is_flow, models_of, precision_of, require_solver, require_sources
from .readable import readable_by, warn_of_world_words
from .settings import Settings, same_names
from .typed import is_given

# of which settings an option is short
OPTIONS = same_names("frames level steps guidance_scale solver batch") | {"longest": "size"}
# what says something of the model alone
DRAWN = ("level", "steps", "guidance_scale", "solver", "longest", "batch")
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
    mask_a: Annotated[
        Path | None,
        file_option(
            "A mask of FIRST, of its size, white for what matches the inside of --mask-b alone, as an object."
        ),
    ] = None,
    mask_b: Annotated[
        Path | None, file_option("The same of SECOND: white for what matches the inside of --mask-a.")
    ] = None,
    mp4: Mp4 = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A diffusion model that draws the frames in between: world for the built-in one, a folder "
            "in diffusers' format, organisation/model of the hub, or one file with all weights "
            "(default: none, the pictures are moved).",
        ),
    ] = None,
    variant: Variant = None,
    model_config: ModelConfig = None,
    level: Annotated[
        float | None,
        typer.Option(
            help="Level of noise from which the model draws, above 0 and up to 1, as a share of its steps "
            "(default: 0.5)."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Text that describes FIRST, for the model (default: none).")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", help="Text that describes SECOND, for the model (default: none).")
    ] = None,
    steps: SamplingSteps = None,
    guidance_scale: GuidanceScale = None,
    solver: Solver = None,
    size: Annotated[
        int | None,
        typer.Option(min=8, help="Longest side in pixels of what is drawn (default: the model's own)."),
    ] = None,
    batch: PictureBatch = None,
    dtype: Precision = "float32",
    truncate: Truncate = False,
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
    named = {"first": "FIRST", "second": "SECOND", "fixed": "--match", "pipeline": "--model"}
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
            {"blend": BlendConfig},
            {"blend": OPTIONS},
            built_in={"--clip": clip in (None, "world"), "--model": model in (None, "world")},
        )
        _require_whole(settings, model, mask_a, mask_b)
        config = settings.make("blend", BlendConfig.of)
        names |= settings.names
        folder = BlendFolder(out, mp4=mp4)
        where, texts = device_of(device), [source or "", target or ""]
        precision_of(dtype)
        require_sources(model=model)
        if model is not None:
            require_solver(solver, is_flow(model))
        inputs = [first, second, *(path for path in (mask_a, mask_b) if path is not None)]
        with folder.claim(resume=resume, overwrite=overwrite, keep=inputs):
            pictures = [
                _read(path, option, names, most_megapixels, where)
                for path, option in ((first, "FIRST"), (second, "SECOND"))
            ]
            _require_inside(pairs, pictures)
            encoder = None
            if clip is not None:
                encoder = encoder_of(clip, clip_weights, where, tokenizer=clip_tokenizer)
            fixed = torch.tensor(pairs, dtype=torch.float32) if pairs else None
            masks = None
            if mask_a is not None and mask_b is not None:
                masks = _masks((mask_a, mask_b), pictures, most_megapixels)
            pipeline = None
            if model is not None:
                pipeline, texts = _model(
                    model, dtype, where, texts, variant=variant, config=model_config, truncate=truncate
                )
            run = Blend(
                *pictures,
                config=config,
                fixed=fixed,
                encoder=encoder,
                masks=masks,
                model=pipeline,
                texts=None if pipeline is None else tuple(texts),
                made=folder.frames(),
            )
            facts = {
                "diffusion": None,
                "masked": [path.name for path in (mask_a, mask_b) if path is not None],
                "first": first.name,
                "second": second.name,
                "mp4": mp4,
                "seeds": [],
                "encoders": [] if encoder is None else [encoder.name],
            }
            if model is not None:
                facts["diffusion"] = {
                    "model": Path(model).name if Path(model).exists() else model,
                    "pipeline": type(pipeline).__name__,
                    "dtype": dtype,
                    "prompts": list(texts),
                }
            job = BlendJob(run, folder, facts=facts)
            record = driven(job, out, NOUNS, resume=resume, look=_made)
    say(took(record, out))


def _require_whole(settings: Settings, model: str | None, mask_a: Path | None, mask_b: Path | None) -> None:
    """Refuse what goes with something that is not given."""
    if (mask_a is None) != (mask_b is None):
        given, other = ("--mask-a", "--mask-b") if mask_b is None else ("--mask-b", "--mask-a")
        raise ValueError(f"{given} goes with {other}, which is not given")
    if model is not None:
        return
    said = [settings.typed[("blend", name)].name for name in DRAWN if ("blend", name) in settings.typed]
    words = ("source", "target", "dtype", "variant", "model_config", "truncate")
    said += [settings.option_of[name] for name in words if is_given(settings.context, name)]
    if said:
        raise ValueError(f"{said[0]} goes with --model, which is not given")


def _masks(paths: tuple[Path, Path], pictures, most_megapixels: float):
    """Masks of both pictures; one of another size is refused."""
    from ..media.masks import read_mask

    masks = []
    for option, path, name, picture in zip(("--mask-a", "--mask-b"), paths, ("FIRST", "SECOND"), pictures):
        mask = read_mask(path, what=option, most_megapixels=most_megapixels)[0]
        (height, width), (h, w) = picture.rgb.shape[1:], mask.shape
        if (h, w) != (height, width):
            raise ValueError(
                f"{option} must be as large as {name}, which is {width} x {height} pixels, got {w} x {h}"
            )
        masks.append(mask)
    return masks[0], masks[1]


def _model(name: str, dtype: str, device: str, texts: list[str], *, truncate: bool, **how):
    """The pipeline that ``--model`` names, and as much of both texts as it can read."""
    from ..models.flow import latent_model

    pipeline, _ = models_of(name, None, dtype, device, **how)
    latent_model(pipeline)  # refuses other kinds
    if is_built_in(name):
        warn_of_world_words(texts)
    readable = [
        readable_by(pipeline, None, [text], option=option, truncate=truncate)[0]
        for option, text in zip(("--from", "--to"), texts)
    ]
    return pipeline, readable


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
    return Seen(len(run.made), run.config.frames, unit="frames")
