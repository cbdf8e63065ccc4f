"""``geokernels eval``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Table

from ..media.bounds import MOST_MEGAPIXELS
from .console import Seen, console, driven, extras, say, sentences, took, warn
from .encoders import encoder_of, require_clips
from .measures import OPTIONS, SECTION, conventions_of, judge_of, measures_of
from .options import (
    Clip,
    ClipTokenizer,
    ClipWeights,
    ConfigFile,
    Decoder,
    Device,
    DiffusionModel,
    LpipsWeights,
    ModelConfig,
    MostMegapixels,
    Out,
    Overwrite,
    PictureBatch,
    Precision,
    Recipe,
    Resume,
    SamplingSteps,
    Seed,
    Sets,
    Shard,
    Size,
    Solver,
    Variant,
    device_of,
    file_option,
    folder_argument,
    folder_option,
)
from .pipelines import (
    instructed_of,
    is_flow,
    models_of,
    precision_of,
    require_invertible,
    require_solver,
    require_sources,
)
from .settings import Settings
from .typed import older_name, shard_given

if TYPE_CHECKING:
    from ..runs.edit_batch import Contender

INSTRUCTED = "instruct_pix2pix"


def evaluate(
    out: Out,
    folder: Annotated[
        Path | None,
        folder_argument("A folder of edits in the layout of PIE-Bench; give this or --world."),
    ] = None,
    world: Annotated[
        int | None,
        typer.Option(min=1, help="Number of edits of the rendered world, to be drawn into --out."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME:FIELD=VALUE,...; repeat for several (default: all that can run)."),
    ] = None,
    recipe: Recipe = None,
    model: DiffusionModel = "world",
    variant: Variant = None,
    model_config: ModelConfig = None,
    clip: Clip = "world",
    clip_weights: ClipWeights = None,
    clip_tokenizer: ClipTokenizer = None,
    judge_clip: Annotated[
        str | None,
        typer.Option(
            help="The CLIP that measures (default: the world's evaluation CLIP with --clip world, "
            "the one of --clip otherwise)."
        ),
    ] = None,
    judge_clip_weights: Annotated[Path | None, file_option("Weights file of --judge-clip.")] = None,
    judge_clip_tokenizer: Annotated[
        Path | None, folder_option("Folder of the tokenizer of --judge-clip.")
    ] = None,
    dino_weights: Annotated[
        Path | None,
        file_option(
            "Weights file of DINO, ViT-B/8 unless --set structure says otherwise, for the structure distance "
            "(default: the tokens of the CLIP that measures)."
        ),
    ] = None,
    lpips_weights: LpipsWeights = None,
    instruct: Annotated[
        str | None,
        typer.Option(help="A pipeline for the method instruct_pix2pix: a folder or a name on the hub."),
    ] = None,
    decoder: Decoder = None,
    steps: SamplingSteps = 50,
    skip: Annotated[
        int | None,
        typer.Option(
            min=0, help="Timesteps that the inversion of a U-Net leaves out, at either end (default: 1)."
        ),
    ] = None,
    solver: Solver = None,
    size: Size = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first n edits only.")] = None,
    batch: PictureBatch = 4,
    shard: Shard = None,
    dtype: Precision = "float32",
    config_file: ConfigFile = None,
    sets: Sets = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Edit pictures by several methods, and compare the results by the usual measures.

    An edit that fails is listed, and counts as failed. Methods may be added with --resume.
    """
    with sentences(evaluate), extras():
        from ..metrics import Conventions
        from ..models.flow import FlowModel, latent_model
        from ..pipelines.comparators import EditModels, require_suited
        from ..runs.edit_batch import Plan
        from ..runs.evaluate import EDITS, EvalFolder, EvalJob
        from ..runs.shards import place_of
        from ..world import read_edit_folder
        from ..world.edit_folder import require_edit_folder

        part = shard_given(shard)
        out = place_of(out, part)
        where = device_of(device)
        precision_of(dtype)
        settings = Settings({SECTION: Conventions}, {SECTION: OPTIONS}, built_in={}, recipes=False)
        asked = settings.values(SECTION)
        require_clips(clip=clip, judge_clip=asked.get("clip"))
        require_sources(model=model, decoder=decoder, instruct=instruct)
        flow = is_flow(model)
        contenders = _contenders(method, instruct is not None, recipe, flow=flow)
        require_solver(solver, flow)
        _require_steps(steps, skip, flow)
        results = EvalFolder(out, tuple(contender.label for contender in contenders))
        if (folder is None) == (world is None):
            raise ValueError("give either a folder of edits or --world, not both or neither")
        read = partial(read_edit_folder, brackets=asked.get("brackets") == "kept")
        cases = [] if folder is None else read(folder)
        rendered = world is not None or all(case.attribute is not None for case in cases)
        weights = {"dino": dino_weights, "lpips": lpips_weights}
        conventions = conventions_of(settings, clip=clip, rendered=rendered, **weights)
        with results.claim(resume=resume, overwrite=overwrite):
            guide = encoder_of(clip, clip_weights, where, tokenizer=clip_tokenizer)
            pipeline, tiny = models_of(model, decoder, dtype, where, variant=variant, config=model_config)
            instructed = None if instruct is None else instructed_of(instruct, pipeline.dtype, where)
            judge = judge_of(guide, asked.get("clip"), judge_clip_weights, judge_clip_tokenizer, where)
            measures = measures_of(conventions, judge, **weights, device=where)
            own = latent_model(pipeline)
            for contender in contenders:
                require_suited(f"--method {contender.label}", contender.method, pipeline)
            if isinstance(own, FlowModel):
                skip = 0
            drawn = {"seed": seed, "size": max(own.picture_size())}
            if world is not None:
                require_edit_folder(out / EDITS, **drawn, replace=overwrite)
            left_out = 1 if skip is None else skip
            plan = Plan(contenders, steps, left_out, batch, seed, size, most_megapixels, solver)
            job = EvalJob(
                plan,
                lambda: (_world(out / EDITS, world, overwrite, drawn, read) if world else cases)[:limit],
                EditModels(pipeline, guide, tiny, instructed),
                measures,
                results,
                facts={
                    "model": Path(model).name if Path(model).exists() else model,
                    "encoders": [guide.name],
                    "seeds": [seed],
                    "decoder": decoder,
                    "dtype": dtype,
                },
                shard=part,
            )
            record = driven(job, out, resume=resume, look=_made)
        _print(record["summary"])
        say(measures.conventions.said())
    say(took(record, out))


def _world(folder: Path, count: int, overwrite: bool, settings: dict, read: Callable) -> list:
    """So many edits of the rendered world, which are written to a folder first."""
    from ..world import write_edit_folder
    from ..world.edit_folder import clear_edit_folder

    if overwrite:
        clear_edit_folder(folder)
    write_edit_folder(folder, count, **settings)
    return read(folder)[:count]


def _made(edits, seconds: float) -> Seen:
    """How many results there are."""
    speed = f"{seconds / max(edits.index, 1):.1f} s an edit"
    return Seen(edits.index, edits.steps, speed=speed, unit="results")


def _require_steps(steps: int, skip: int | None, flow: bool | None) -> None:
    """Refuse steps that an inversion cannot take."""
    if flow:
        if skip is not None:
            raise ValueError(f"--skip goes with U-Nets: a rectified flow takes every level, got {skip}")
        return
    require_invertible(steps)
    if skip is not None and 2 * skip >= steps:
        raise ValueError(f"--skip must leave some of the {steps} steps at both ends, got {skip}")


def _contenders(
    wanted: list[str] | None, instructed: bool, recipe: str | None, *, flow: bool | None = False
) -> list[Contender]:
    """The methods that ``--method`` names, with their settings.

    Args:
        wanted: What was typed; None for all that can run.
        instructed: Whether there is a model that follows instructions.
        recipe: Of those that have several.
        flow: Whether the model is a rectified flow; where that is not known, any method may be named.
    """
    from ..pipelines.comparators import FLOW, METHODS, UNET
    from ..runs.edit_batch import Contender

    family = FLOW if flow else UNET
    known_methods = [name for name, method in METHODS.items() if family in method.suits]
    wanted = wanted or [name for name in known_methods if name != INSTRUCTED or instructed]
    contenders = []
    for label in wanted:
        name, _, given = label.partition(":")
        if name == INSTRUCTED and not instructed:
            raise ValueError(
                f"--method {name} needs --instruct, a pipeline that was trained to follow instructions"
            )
        if name not in METHODS:
            raise ValueError(f"--method must be one of {', '.join(METHODS)}, got {name!r}")
        if flow is not None and name not in known_methods:
            raise ValueError(
                f"--method {name} edits with {' and '.join(METHODS[name].suits)}, of which --model is none; "
                f"with {family} do {', '.join(known_methods)}"
            )
        settings = METHODS[name].settings
        known = {field.name: field for field in fields(settings)}
        values = {}
        for pair in filter(None, given.split(",")):
            field, _, value = pair.partition("=")
            older, field = field, getattr(settings, "renamed", {}).get(field, field)
            if older != field:
                warn(older_name(f"--method {name}: {older}", field))
            if field not in known:
                listed = ", ".join(known) or "no settings"
                raise ValueError(f"--method {name} has {listed}, got {field!r}")
            values[field] = _value(value, known[field], f"--method {name}: {field}")
        if recipe is not None and "recipe" in known:
            values.setdefault("recipe", recipe)
        contenders.append(Contender(label, METHODS[name], settings(**values)))
    if recipe is not None and not any(hasattr(contender.settings, "recipe") for contender in contenders):
        raise ValueError(
            f"--recipe goes with methods that have several, got {recipe} for {', '.join(wanted)}"
        )
    if len({contender.label for contender in contenders}) < len(contenders):
        raise ValueError(f"--method must name each method and its settings once, got {', '.join(wanted)}")
    return contenders


def _value(text: str, field: Field, name: str) -> object:
    """A number, true, false or null; any other text is itself. Refuses another kind than the setting's."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if value is None and "None" in str(field.type):
        return None
    declared = get_args(field.type) or (field.type,)
    for kind, called in ((bool, "true or false"), ((int, float), "a number"), (str, "a word")):
        if any(part in declared for part in (kind if isinstance(kind, tuple) else (kind,))):
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise ValueError(f"{name} must be {called}, got {text!r}")
            break
    return value


def _print(summary: dict) -> None:
    """The table's most read columns."""
    shown = {"reached": "{:.0%}", "kept": "{:.1%}", "right": "{:.0%}", "background": "{:.1f} dB"}
    shown |= {"clip_score": "{:.2f}", "psnr_outside": "{:.1f} dB", "structure": "{:.4f}"}
    shown = {name: way for name, way in shown.items() if any(values[name] for values in summary.values())}
    table = Table("method", "edits", "failed", *(name.replace("_", " ") for name in shown))
    for label, values in summary.items():
        cells = [way.format(values[name]["value"]) if values[name] else "" for name, way in shown.items()]
        table.add_row(label, str(values["edits"]), str(values["failed"]), *cells)
    console().print(table)
