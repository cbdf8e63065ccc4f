"""``geokernels edit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import MostMegapixels, Seen, device_of, extras, say, sentences, showing, warn
from .encoders import CLIP, TOKENIZER, WEIGHTS, encoder_of, require_clips, warn_of_unknown_words
from .options import file_argument, file_option, folder_option, seed_option
from .out import out_option
from .pipelines import CONFIG, MODEL, VARIANT, decoder_of, pipeline_of, require_captioner, require_sources

PRECISIONS = ("float32", "bfloat16", "float16")


def edit(
    out: Annotated[Path, out_option("Folder for the results.")],
    target: Annotated[list[str], typer.Option("--to", help="What it shall show; repeat for several edits.")],
    picture: Annotated[
        Path | None,
        file_argument("PNG, JPEG or WebP; without one, the model draws the source."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="What the picture shows; or give --captioner.")
    ] = None,
    captioner: Annotated[
        str | None, typer.Option(help="A BLIP that says what the picture shows: a folder or a hub name.")
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL)] = "world",
    variant: Annotated[str | None, typer.Option(help=VARIANT)] = None,
    model_config: Annotated[Path | None, folder_option(CONFIG)] = None,
    clip: Annotated[str, typer.Option(help=f"{CLIP}.")] = "world",
    clip_weights: Annotated[Path | None, file_option(WEIGHTS)] = None,
    clip_tokenizer: Annotated[Path | None, folder_option(TOKENIZER)] = None,
    inversion: Annotated[
        Path | None, file_option("inversion.pt of an earlier run, instead of inverting again.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 50,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    clip_weight: Annotated[float | None, typer.Option(help="Weight of the move to the text.")] = None,
    structure: Annotated[float | None, typer.Option(help="Weight of the source's features.")] = None,
    negative: Annotated[
        str, typer.Option(help="What a given picture's edit is led away from: its source caption, or empty.")
    ] = "source",
    gradient: Annotated[str, typer.Option(help="exact or released.")] = "exact",
    every: Annotated[int | None, typer.Option(min=1, help="Guide each so many-th step.")] = None,
    until: Annotated[float | None, typer.Option(help="Share of the steps after which guidance ends.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="A tiny autoencoder for CLIP's view: world, a folder or a hub name.")
    ] = None,
    decode_size: Annotated[int | None, typer.Option(min=8, help="Longest side of CLIP's view.")] = None,
    cycle: Annotated[float | None, typer.Option(help="Weight of the cycle of OIG+; 0 leaves it out.")] = None,
    cycle_steps: Annotated[int | None, typer.Option(min=1, help="Steps that close the cycle.")] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long for a model, and say so.")
    ] = False,
    checkpointing: Annotated[bool, typer.Option(help="Less memory, more time.")] = False,
    size: Annotated[int | None, typer.Option(min=8, help="Longest side of the edit, in pixels.")] = None,
    dtype: Annotated[str, typer.Option(help=", ".join(PRECISIONS) + ".")] = "float32",
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Annotated[int, seed_option("Chooses a drawn source.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in --out.")] = False,
) -> None:
    """Edit a picture with a diffusion model: what the text asks changes, the structure stays."""
    with sentences(edit, clip="--clip-weight", captions="--from", targets="--to"), extras():
        from ..media.pictures import read_picture
        from ..models.denoiser import Denoiser
        from ..pipelines.edit.oig import OIGConfig, OIGEdit, require_texts
        from ..runs.edit import INVERSION, EditFolder, run_edit

        given = {"guidance": guidance, "clip": clip_weight, "structure": structure, "every": every}
        given |= {"until": until, "decode_size": decode_size, "cycle": cycle, "cycle_steps": cycle_steps}
        config = OIGConfig(
            negative=negative,
            gradient=gradient,
            checkpointing=checkpointing,
            **{k: v for k, v in given.items() if v is not None},
        )
        folder, where = EditFolder(out), device_of(device)
        precision_of(dtype)
        require_clips(clip=clip)
        require_sources(model=model, decoder=decoder)
        require_captioner(captioner)
        folder.require(resume=resume, overwrite=overwrite)
        original = None if picture is None else read_picture(picture, most_megapixels=most_megapixels).rgb
        encoder = encoder_of(clip, clip_weights, where, tokenizer=clip_tokenizer)
        source = _caption(source, captioner, original, where)
        require_texts([source], target)
        warn_of_unknown_words([encoder], source, *target)
        pipeline, tiny = models_of(model, decoder, dtype, where, variant=variant, config=model_config)
        (source,) = readable_by(pipeline, encoder, [source], option="--from", truncate=truncate)
        target = readable_by(pipeline, encoder, target, option="--to", truncate=truncate)
        require_texts([source], target)
        shown = None if original is None else Denoiser(pipeline).suited(original, size)
        began = time.perf_counter()
        own = out / INVERSION
        kept = inversion or (own if resume and shown is not None and own.exists() else None)
        start = _source(pipeline, shown, source, kept, steps, size, seed)
        run = OIGEdit(pipeline, encoder, start, target, config=config, decoder=tiny)
        inputs = [path for path in (picture, inversion) if path is not None]
        folder.claim(resume=resume, overwrite=overwrite, keep=inputs)
        facts = {
            "picture": picture and picture.name,
            "from": source,
            "captioner": captioner and Path(captioner).name,
            "to": list(target),
            "seed": seed,
            "model": Path(model).name if Path(model).exists() else model,
            "encoder": encoder.name,
            "decoder": decoder,
        }
        with folder, showing(out, {"edit": "editing"}) as show:

            def on_step(run: OIGEdit, seconds: float) -> None:
                show(None, "edit", run, seconds)

            record = run_edit(
                run,
                shown,
                folder,
                facts=facts,
                inversion=start if shown is not None or inversion is not None else None,
                before=time.perf_counter() - began,
                resume=resume,
                on_step=on_step,
            )
    say(f"{record['seconds']:.1f} s, {record['steps_per_second']:.1f} steps/s. Report: {out / 'report.html'}")


def _caption(given: str | None, captioner: str | None, picture, device: str) -> str:
    """What the picture shows, as it was said, or as a captioner says."""
    if (given is None) == (captioner is None):
        raise ValueError("give either --from or --captioner, not both or neither")
    if given is not None:
        return given
    if picture is None:
        raise ValueError("--captioner needs a picture, got none; say --from what the model shall draw")
    from ..models.captioner import load_captioner

    (found,) = load_captioner(captioner, device=device)(picture[None])
    say(f"The picture shows: {found}")
    return found


def precision_of(dtype: str):
    """The dtype that ``--dtype`` names."""
    import torch

    if dtype not in PRECISIONS:
        raise ValueError(f"--dtype must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {dtype!r}")
    return getattr(torch, dtype)


def models_of(
    model: str, decoder: str | None, dtype: str, device: str, *, variant: str | None, config: Path | None
):
    """The pipeline, and the tiny autoencoder if one is asked for."""
    import torch

    precision = precision_of(dtype)
    pipeline = pipeline_of(model, variant, config, precision, device)
    if dtype == "float16" and "XL" in type(pipeline).__name__ and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # its activations are beyond float16
    tiny = None if decoder is None else decoder_of(decoder, precision, device)
    return pipeline, tiny


def readable_by(pipeline, encoder, texts: list[str], *, option: str, truncate: bool) -> list[str]:
    """The texts, which both models can read, or as many of their words as they can; before long work.

    Raises:
        ValueError: If one is too long, and is not to be cut.
    """
    found = []
    for text in texts:
        error, words = _refusal(pipeline, encoder, text, option), text.split()
        while error is not None and truncate and len(words) > 1:
            words.pop()
            error = _refusal(pipeline, encoder, " ".join(words), option)
        if error is not None:
            raise error
        whole = len(words) == len(text.split())
        found.append(text if whole else " ".join(words))
        if not whole:
            warn(f"Warning: {option} is too long for a model and was cut to {found[-1]!r}.")
    return found


def _refusal(pipeline, encoder, text: str, option: str) -> ValueError | None:
    """What the models say of a text that is too long, or None."""
    from .._checks import renamed
    from ..models.denoiser import Denoiser

    try:
        Denoiser(pipeline).read([text])
        encoder.encode_text([text])
    except ValueError as error:
        if " tokens, got " not in str(error):
            raise
        said = str(error).removesuffix("; shorten it, or have it truncated")
        return ValueError(f"{renamed(said, {'prompt': option})}; shorten it, or add --truncate")
    return None


def _source(pipeline, shown, caption: str, kept: Path | None, steps: int, size, seed: int):
    """Where the edits begin: a kept inversion, that of the picture, or noise."""
    import torch

    from ..pipelines.edit.source import EditSource, ddim_inversion, draw_source

    if kept is not None:
        found = EditSource.load(kept)
        if found.captions != (caption,) or found.steps != steps:
            raise ValueError(
                f"the inversion must be of --from {caption!r} in {steps} steps, "
                f"got one of {found.captions[0]!r} in {found.steps}"
            )
        return found
    if shown is None:
        return draw_source(
            pipeline,
            [caption],
            steps=steps,
            height=size,
            width=size,
            generator=torch.Generator().manual_seed(seed),
        )
    with showing() as show:
        return ddim_inversion(
            pipeline,
            shown[None],
            [caption],
            steps=steps,
            callback=lambda index: show.update("inverting", Seen(index, None)),
        )
