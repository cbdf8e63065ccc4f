"""``geokernels interpolate``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import Seen, console, driven, extras, say, sentences, took, warn
from .kept import kept
from .options import (
    MOST_SEED,
    SEED,
    ConfigFile,
    Device,
    DiffusionModel,
    GuidanceScale,
    LpipsWeights,
    ModelConfig,
    Mp4,
    Out,
    Overwrite,
    PictureBatch,
    Precision,
    Recipe,
    Resume,
    SamplingSteps,
    Sets,
    Truncate,
    Variant,
    device_of,
)
from .pipelines import is_built_in, pipeline_of, precision_of, require_sources
from .readable import warn_of_world_words
from .settings import Settings, same_names

DISTANCES = ("features", "lpips", "none")
# of which settings an option is short
OPTIONS = same_names("coupling rows eps frames steps guidance_scale height width batch uniform truncate")


def interpolate(
    prompt: Annotated[
        list[str],
        typer.Option(help="A prompt on the path; repeat it for each of them, two at least."),
    ],
    out: Out,
    model: DiffusionModel = "world",
    variant: Variant = None,
    model_config: ModelConfig = None,
    recipe: Recipe = None,
    coupling: Annotated[
        str | None,
        typer.Option(help="Which token goes to which: ot, entropic, row, slerp or random (default: ot)."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Run every coupling, side by side.")] = False,
    rows: Annotated[
        str | None,
        typer.Option(help="Which tokens may go to which: all, pinned or blockwise (default: all)."),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(
            help="Regularisation of the entropic coupling, as a fraction of the mean cost (default: 0.05)."
        ),
    ] = None,
    uniform: Annotated[
        bool,
        typer.Option("--uniform", help="Move the times until the pictures are evenly spaced by --distance."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Pictures on the path, both ends included (default: 9).")
    ] = None,
    steps: SamplingSteps = None,
    guidance_scale: GuidanceScale = None,
    negative: Annotated[str | None, typer.Option(help="A negative prompt.")] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MOST_SEED, help=f"{SEED} One for all, or one for each prompt (default: 0)."),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=8, help="Height in pixels (default: the model's own).")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=8, help="Width in pixels (default: the model's own).")
    ] = None,
    batch: PictureBatch = None,
    dtype: Precision = "float32",
    truncate: Truncate = False,
    distance: Annotated[
        str | None,
        typer.Option(
            help="Distance between pictures: features, lpips or none "
            "(default: features with --model world, lpips otherwise)."
        ),
    ] = None,
    lpips_weights: LpipsWeights = None,
    config_file: ConfigFile = None,
    sets: Sets = None,
    mp4: Mp4 = False,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw pictures along a path from prompt to prompt, whose tokens are matched by optimal transport."""
    with sentences(interpolate, prompts="--prompt", generator="--seed") as names, extras():
        from .._checks import require_choice
        from ..media.clips import require_av
        from ..models.text_to_image import TextToImage
        from ..pipelines import PromptInterpolationConfig
        from ..pipelines.interpolate.couplings import COUPLINGS
        from ..report.interpolate import HEAD, scores_table
        from ..runs.interpolate import InterpolateJob, InterpolationFolder

        if mp4:
            require_av()
        kinds, built_in = {"interpolate": PromptInterpolationConfig}, {"--model": is_built_in(model)}
        settings = Settings(kinds, {"interpolate": OPTIONS}, built_in=built_in)
        if compare and "coupling" in settings.names_of("interpolate"):
            raise ValueError(f"--compare runs every coupling, got {settings.names['coupling']} with it")
        config = settings.make("interpolate")
        names |= settings.names
        precision, kind = precision_of(dtype), distance or ("features" if is_built_in(model) else "lpips")
        require_choice("--distance", kind, DISTANCES)
        require_sources(model=model)
        where, folder = device_of(device), InterpolationFolder(out, len(COUPLINGS) if compare else 1, mp4)
        with folder.claim(resume=resume, overwrite=overwrite):
            settings.tell()
            drawing = TextToImage(pipeline_of(model, variant, model_config, precision, where))
            measure, called = _distance(kind, lpips_weights, where)
            if is_built_in(model):
                warn_of_world_words([*prompt, negative or ""])
            with _warnings_as_lines():
                say("Trying whether the model reads a prompt as a set of tokens.")  # a dozen passes of it
                how = {"negative": negative, "distance": measure, "seeds": seed or [0]}
                runs = _runs(drawing, prompt, config, compare, made=folder.drawn, **how)
            facts = {"prompts": list(prompt), "negative": negative, "seeds": list(seed or [0]), "mp4": mp4}
            facts |= {"model": model if is_built_in(model) else Path(model).name, "pipeline": drawing.name}
            facts |= {"dtype": dtype, "distance": called, "encoders": []}
            job = InterpolateJob(runs, folder, facts=facts, judged=is_built_in(model))
            record = driven(job, out, resume=resume, look=_drawn)
        if measure is not None:
            table = Table(*HEAD)
            for cells in scores_table({name: run["score"] for name, run in record["paths"].items()}):
                table.add_row(*cells)
            console().print(table)
    for name, run in runs.items():
        _say_if_uneven(name, run.config, record["paths"][name])
    say(took(record, out))


def _runs(
    drawing, prompts: list[str], config, compare: bool, *, made, negative, distance, seeds: list[int]
) -> dict:
    """One interpolation a coupling; what is costly to find out is found out once."""
    import torch

    from ..pipelines import PromptInterpolation
    from ..pipelines.interpolate.couplings import COUPLINGS

    runs: dict = {}
    for coupling in COUPLINGS if compare else (config.coupling,):
        chances = [torch.Generator().manual_seed(s) for s in seeds]
        runs[coupling] = PromptInterpolation(
            drawing,
            prompts,
            config=replace(config, coupling=coupling),
            generator=chances[0] if len(chances) == 1 else chances,
            negative=negative,
            distance=distance,
            invariance=next((run.invariance for run in runs.values()), None),
            made=made(coupling),
        )
    return runs


def _drawn(run, seconds: float) -> Seen:
    """How many pictures of a path there are."""
    again = f"round {run.round + 1}" if run.round and not run.done else ""
    return Seen(run.drawn, run.config.frames, again, unit="pictures")


def _distance(kind: str, weights: Path | None, device: str):
    """A distance of pictures and what it is called."""
    if weights is not None and kind != "lpips":
        raise ValueError(f"--lpips-weights goes with --distance lpips, not with {kind}")
    if kind == "none":
        return None, "none"
    if kind == "features":
        from ..models import load_clip
        from ..pipelines import feature_metric

        return feature_metric(kept(load_clip, "world", device=device)), "feature distance of the world's CLIP"
    from urllib.error import URLError

    from ..models.perceptual import load_lpips

    try:
        lpips = load_lpips("alex", weights, device=device, called="--lpips-weights")
    except URLError as error:
        raise OSError(
            f"the weights of LPIPS' AlexNet cannot be downloaded ({error.reason}): give their file as "
            "--lpips-weights, or take --distance features or none"
        ) from error
    return (lambda a, b: lpips(a.to(device), b.to(device))), "LPIPS (AlexNet)"


def _say_if_uneven(name: str, config, path: dict) -> None:
    """Uniform speed may be out of reach: a picture can jump however close two prompts are."""
    if config.uniform and path["score"]["worst_step"] > 1 + config.evenness:
        warn(
            f"Warning: after {path['rounds']} rounds the largest step of {name} is "
            f"{path['score']['worst_step']:.2f} mean steps, not within {1 + config.evenness:.2f}; "
            "more frames may help."
        )


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Say Python's warnings, of prompts cut short, as lines of the command."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for said in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning):
        warn(f"Warning: {said}")
