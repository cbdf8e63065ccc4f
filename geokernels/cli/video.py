"""``geokernels video``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..media.bounds import MOST_MEGAPIXELS
from .console import driven, extras, say, sentences, took, warn
from .encoders import encoder_of, require_clips, warn_of_unknown_words
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
    file_option,
    path_argument,
    path_option,
)
from .settings import Settings

# of a run: what each is of
STAGES = {"frames": "clip", "flow": "flow", "masks": "masks", "atlas": "atlas", "edit": "edit"}
STAGES |= {"writing": "result"}
# of which settings an option is short
OPTIONS = {"loss": "loss", "steps": "steps", "strength": "strength", "working_size": "size"}
OPTIONS |= {"layer": "layer", "guess": "start"}
OF_FIT = {"steps": "fit_steps", "samples": "samples"}


def video(
    clip: Annotated[Path, path_argument("A video (mp4, GIF, ...), or a folder of frames.")],
    source: From,
    target: To,
    out: Out,
    layer: Annotated[
        str | None,
        typer.Option(help="Which layer to edit: foreground or background (default: foreground)."),
    ] = None,
    masks: Annotated[
        Path | None,
        path_option(
            "A folder of masks, one for each frame, white for the foreground "
            "(default: found from what moves)."
        ),
    ] = None,
    empty_masks: Annotated[
        bool,
        typer.Option(
            "--empty-masks", help="Allow empty masks, for frames in which the foreground is out of sight."
        ),
    ] = False,
    atlas: Annotated[
        Path | None,
        file_option("atlas.safetensors of an earlier run on the same clip, instead of a new fit."),
    ] = None,
    flow: Annotated[
        str,
        typer.Option(help="Optical flow: dis, or RAFT with its weights: raft_small=FILE or raft_large=FILE."),
    ] = "dis",
    recipe: Recipe = None,
    loss: Loss = None,
    clip_model: Clip = "world",
    clip_weights: ClipWeights = None,
    clip_tokenizer: ClipTokenizer = None,
    steps: Steps = None,
    fit_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimisation steps of the fit of the atlas.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Pixels that each step of the fit of the atlas draws.")
    ] = None,
    strength: Strength = None,
    size: Size = None,
    start: Start = None,
    screen: Screen = None,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Frames per second, where the clip is a folder of frames.")
    ] = 24.0,
    config_file: ConfigFile = None,
    sets: Sets = None,
    most_megapixels: MostMegapixels = MOST_MEGAPIXELS,
    seed: Seed = 0,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Change the foreground or background of a clip from one text to another."""
    with sentences(video, working_size="--size") as names, extras():
        import torch

        from .._files import scratch_folder
        from ..models import load_atlas, load_flow
        from ..pipelines import AtlasFitConfig, VideoEdit, VideoEditConfig
        from ..pipelines.guidance.terms import require_guides
        from ..pipelines.run_state import plain
        from ..runs.video import Clip, VideoFolder, VideoJob, fit_config

        kinds = {"edit": VideoEditConfig, "atlas": AtlasFitConfig}
        how = {"built_in": {"--clip": clip_model == "world"}, "open_sections": ("atlas",)}
        settings = Settings(kinds, {"edit": OPTIONS, "atlas": OF_FIT}, **how)
        config, fitting = settings.make("edit"), settings.values("atlas")
        settings.make("atlas", partial(fit_config, (1, 1)))  # refused now, and not once the clip was read
        names |= settings.names
        if atlas is not None:
            settings.refuse("atlas", "is no option with --atlas, which is fitted already")
        folder, where = VideoFolder(out), device_of(device)
        require_clips(clip=clip_model)
        inputs = [path for path in (clip, masks, atlas) if path is not None]
        with (
            folder.claim(resume=resume, overwrite=overwrite, keep=inputs),
            scratch_folder(out) as scratch,
        ):
            settings.tell()
            read = _clip(clip, masks, empty_masks, rate, most_megapixels)
            estimator = load_flow(flow, device=where)
            encoder = encoder_of(clip_model, clip_weights, where, tokenizer=clip_tokenizer)
            require_guides([encoder], source, target, config)  # now, and not once the atlas is fitted
            warn_of_unknown_words([encoder], source, target, *([screen] if screen else []))

            def begin(footage, fitted):
                chance = torch.Generator().manual_seed(seed)
                how = {"screen": screen, "config": config, "generator": chance}
                return VideoEdit(footage, fitted, [encoder], source, target, **how)

            job = VideoJob(
                Clip(*read, estimator, empty_masks, needs_object=config.layer == "foreground"),
                begin,
                folder,
                scratch,
                facts={
                    "clip": clip.name,
                    "from": source,
                    "to": [target],
                    "seeds": [seed],
                    "flow": flow.split("=")[0],
                    "masks": masks and masks.name,
                    "encoders": [encoder.name],
                },
                config=plain(config),
                atlas=None if atlas is None else _atlas(atlas, masks, load_atlas, where),
                fit_settings=fitting,
                seed=seed,
                device=where,
            )
            record = driven(job, out, STAGES, resume=resume, unit="frames")
    say(took(record, out))


def _clip(clip: Path, masks: Path | None, empty_masks: bool, rate: float, most_megapixels: float):
    """Where frames and masks are read; what cannot be read is refused before models are."""
    from ..media.clips import VideoSource, require_masks

    source_of = partial(VideoSource, most_megapixels=most_megapixels, warn=_warn)
    frames = source_of(clip, rate)
    if masks is None:
        if empty_masks:
            raise ValueError("--empty-masks goes with --masks, got it without")
        frames.size()
        return frames, None
    masks_of = source_of(masks, what="--masks")
    require_masks(masks_of, frames, may_be_empty=empty_masks)
    return frames, masks_of


def _atlas(path: Path, masks: Path | None, load, device: str):
    """The atlas of an earlier run; refuses masks, by which none will be fitted."""
    if masks is not None:
        raise ValueError(f"--masks is no option with --atlas, which is fitted already, got {masks}")
    return load(path, device=device)


def _warn(sentence: str) -> None:
    warn(f"Warning: {sentence}.")
