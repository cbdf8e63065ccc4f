"""``geokernels edit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import driven, extras, say, sentences, took
from .encoders import encoder_of, require_clips, warn_of_unknown_words
from .options import (
    Clip,
    ClipTokenizer,
    ClipWeights,
    ConfigFile,
    Decoder,
    Device,
    DiffusionModel,
    GuidanceScale,
    ModelConfig,
    MostMegapixels,
    Out,
    Overwrite,
    Precision,
    Recipe,
    Resume,
    SamplingSteps,
    Seed,
    Sets,
    Size,
    Solver,
    Truncate,
    Variant,
    device_of,
    file_argument,
    file_option,
)
from .pipelines import (
    is_built_in,
    is_flow,
    models_of,
    precision_of,
    require_captioner,
    require_invertible,
    require_solver,
    require_sources,
)
from .readable import readable_by
from .settings import Settings, same_names

NOUNS = {"edit": "editing"}  # what stages are called
# of which settings an option is short
OPTIONS = {"clip": "clip_weight"}
OPTIONS |= same_names(
    "guidance_scale structure blocks negative gradient every until decode_size cycle cycle_steps"
    " checkpointing"
)


def edit(
    out: Out,
    target: Annotated[
        list[str],
        typer.Option("--to", help="Text that describes what it should become; repeat for several edits."),
    ],
    picture: Annotated[
        Path | None,
        file_argument("A PNG, JPEG or WebP picture; without one, the model draws what --from says."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Text that describes the picture; give this or --captioner."),
    ] = None,
    captioner: Annotated[
        str | None,
        typer.Option(help="A BLIP model that describes the picture: a folder or a name on the hub."),
    ] = None,
    model: DiffusionModel = "world",
    variant: Variant = None,
    model_config: ModelConfig = None,
    clip: Clip = "world",
    clip_weights: ClipWeights = None,
    clip_tokenizer: ClipTokenizer = None,
    inversion: Annotated[
        Path | None, file_option("inversion.pt of an earlier run, to be used instead of inverting again.")
    ] = None,
    recipe: Recipe = None,
    steps: SamplingSteps = 50,
    guidance_scale: GuidanceScale = None,
    clip_weight: Annotated[
        float | None, typer.Option(help="Weight of the guidance by CLIP, towards --to.")
    ] = None,
    structure: Annotated[
        float | None, typer.Option(help="Weight of staying close to the source's features in the network.")
    ] = None,
    blocks: Annotated[
        float | None,
        typer.Option(help="Share of a rectified-flow transformer's blocks whose features those are."),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            help="The negative prompt of a given picture's edit: source for the text of --from, or empty "
            "(default: by recipe)."
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            help="How CLIP's gradient is taken: exact, or released for that of the released code "
            "(default: by recipe)."
        ),
    ] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Guide by CLIP at every n-th step only.")] = None,
    until: Annotated[
        float | None,
        typer.Option(help="Fraction of the steps, from 0 to 1, after which guidance by CLIP ends."),
    ] = None,
    solver: Solver = None,
    decoder: Decoder = None,
    decode_size: Annotated[
        int | None, typer.Option(min=8, help="Longest side in pixels of the pictures that CLIP sees.")
    ] = None,
    cycle: Annotated[
        float | None, typer.Option(help="Weight of the cycle consistency of OIG+; 0 leaves it out.")
    ] = None,
    cycle_steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps that close the cycle.")
    ] = None,
    truncate: Truncate = False,
    checkpointing: Annotated[
        bool | None,
        typer.Option(help="Recompute activations in the backward pass: less memory, more time."),
    ] = None,
    config_file: ConfigFile = None,
    sets: Sets = None,
    size: Size = None,
    dtype: Precision = "float32",
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Edit a picture with a diffusion model: what the text asks for changes, the structure stays."""
    with sentences(edit, clip="--clip-weight", captions="--from", targets="--to") as names, extras():
        from ..media.pictures import read_picture
        from ..models.flow import latent_model
        from ..pipelines.edit.oig import OIGConfig, OIGEdit, require_texts
        from ..pipelines.run_state import plain
        from ..runs.edit import INVERSION, EditFolder, EditJob

        built_in = {"--model": is_built_in(model), "--clip": clip == "world"}
        flow = is_flow(model)
        own = ("flow", "as --model is a rectified flow") if flow else None
        settings = Settings({"edit": OIGConfig}, {"edit": OPTIONS}, built_in=built_in, own=own)
        config = settings.make("edit")
        names |= settings.names
        folder, where = EditFolder(out), device_of(device)
        precision_of(dtype)
        require_clips(clip=clip)
        require_sources(model=model, decoder=decoder)
        require_captioner(captioner)
        require_solver(solver, flow)
        if flow and config.cycle:
            raise ValueError(f"--cycle goes with U-Nets, got {config.cycle} with a rectified flow")
        if picture is not None and inversion is None and not flow:
            require_invertible(steps)
        inputs = [path for path in (picture, inversion) if path is not None]
        with folder.claim(resume=resume, overwrite=overwrite, keep=inputs):
            settings.tell()
            original = None if picture is None else read_picture(picture, most_megapixels=most_megapixels).rgb
            encoder = encoder_of(clip, clip_weights, where, tokenizer=clip_tokenizer)
            source = _caption(source, captioner, original, where)
            require_texts([source], target)
            warn_of_unknown_words([encoder], source, *target)
            pipeline, tiny = models_of(model, decoder, dtype, where, variant=variant, config=model_config)
            (source,) = readable_by(pipeline, encoder, [source], option="--from", truncate=truncate)
            target = readable_by(pipeline, encoder, target, option="--to", truncate=truncate)
            require_texts([source], target)
            shown = None if original is None else latent_model(pipeline).suited(original, size)
            own = out / INVERSION if resume and shown is not None else None
            job = EditJob(
                lambda begun: OIGEdit(pipeline, encoder, begun, target, config=config, decoder=tiny),
                lambda tell: _begin(pipeline, shown, source, steps, size, seed, solver, tell),
                shown,
                folder,
                facts={
                    "picture": picture and picture.name,
                    "from": source,
                    "captioner": captioner and Path(captioner).name,
                    "to": list(target),
                    "seeds": [seed],
                    "model": Path(model).name if Path(model).exists() else model,
                    "encoders": [encoder.name],
                    "decoder": decoder,
                    "dtype": dtype,
                },
                config={
                    **plain(config),
                    "steps": steps,
                    "size": size,
                    **({"solver": solver} if solver else {}),
                },
                kept=_kept(inversion, own, source, steps),
                device=where,
            )
            record = driven(job, out, NOUNS, resume=resume)
    say(took(record, out))


def _caption(given: str | None, captioner: str | None, picture, device: str) -> str:
    """What the picture shows, as it was said, or as a captioner says."""
    if (given is None) == (captioner is None):
        raise ValueError("give either --from or --captioner, not both or neither")
    if given is not None:
        return given
    if picture is None:
        raise ValueError(
            "--captioner needs a picture, got none; give --from, the text of what the model should draw"
        )
    from ..models.captioner import load_captioner

    (caption,) = load_captioner(captioner, device=device)(picture[None])
    say(f"The picture shows: {caption}")
    return caption


def _kept(given: Path | None, own: Path | None, caption: str, steps: int):
    """An inversion that was made before, if there is one; refuses one of another text, or of other steps."""
    from ..pipelines.edit.source import EditSource

    path = given or (own if own is not None and own.exists() else None)
    if path is None:
        return None
    kept = EditSource.load(path)
    if kept.captions != (caption,) or kept.steps != steps:
        raise ValueError(
            f"the inversion must be of --from {caption!r} in {steps} steps, "
            f"got one of {kept.captions[0]!r} in {kept.steps}"
        )
    return kept


def _begin(pipeline, shown, caption: str, steps: int, size, seed: int, solver: str | None, tell):
    """Where the edits begin: the inversion of the picture, or noise."""
    import torch

    from ..models.flow import latent_model
    from ..pipelines.edit.flow_inversion import inversion_steps, invert
    from ..pipelines.edit.source import draw_source

    if shown is None:
        chance = torch.Generator().manual_seed(seed)
        return draw_source(pipeline, [caption], steps=steps, height=size, width=size, generator=chance)
    total = inversion_steps(latent_model(pipeline), steps)
    tell("inverting", 0, total)  # reading the picture comes first, and takes as long as a step
    return invert(
        pipeline,
        shown[None],
        [caption],
        steps=steps,
        solver=solver,
        callback=lambda index: tell("inverting", index, total),
    )
