"""The options that commands share: one definition each, with its type and its help text."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import fail

MOST_SEED = 2**63 - 1  # torch draws from twice as many: numbers of edits and samples are added


def _path(text: str | Path) -> Path:
    if text == "":  # which pathlib takes for the folder one is in
        raise typer.BadParameter("must be a path, got an empty text")
    return Path(text)


def _existing(option: Any, kind: str) -> Any:
    option.existing = kind
    return option


def file_option(about: str, *names: str) -> Any:
    """A file that must be there."""
    return _existing(typer.Option(*names, help=about, parser=_path, metavar="PATH"), "file")


def folder_option(about: str) -> Any:
    """A folder that must be there."""
    return _existing(typer.Option(help=about, parser=_path, metavar="PATH"), "folder")


def path_option(about: str) -> Any:
    """A file or folder that must be there."""
    return _existing(typer.Option(help=about, parser=_path, metavar="PATH"), "file or folder")


def file_argument(about: str) -> Any:
    """A file that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "file")


def folder_argument(about: str) -> Any:
    """A folder that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "folder")


def path_argument(about: str) -> Any:
    """A file or folder that must be there."""
    return _existing(typer.Argument(help=about, parser=_path), "file or folder")


def out_option(about: str, name: str = "--out") -> Any:
    """A path to write to, which an empty text is not: it would mean the current folder."""

    def path_of(given: str) -> Path:
        if not str(given):
            fail(f"{name} must say where to write, got ''")
        return Path(given)

    return typer.Option(name, parser=path_of, metavar="PATH", help=about)


def bare(option: Any, value: str, *, not_before: Sequence[str] = ()) -> Any:
    """The option, which may stand without a value and means ``value`` then.

    It stands so at the end, before another option, and before a word that ends in one of ``not_before``.
    """
    option.bare, option.not_before = value, tuple(not_before)
    return option


def formerly(option: Any, *names: str) -> Any:
    """The option, which is still taken by older names for one release; no help text shows them."""
    option.formerly = names
    return option


# Where results go, and what else is there.
Out = Annotated[Path, out_option("Folder for the results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what another run left in --out.")]

# Every setting of the pipelines: see ``settings``.
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Which settings to begin from: published, those of the method's authors, or world, tuned on the "
        "built-in models (default: world if every model is built in)."
    ),
]
ConfigFile = Annotated[
    Path | None,
    file_option("A file of settings, YAML or TOML, or run.json of an earlier run.", "--config"),
]
Start = Annotated[
    bool | None,
    typer.Option(
        "--start/--no-start",
        help="Search for a good beginning before the first step, as suits rendered pictures "
        "(default: as the recipe says, where the published one does not).",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the method, by its name; repeat for several."
    ),
]

# How it is computed.
SEED = "Seed of everything random: the same seed gives the same result."
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help=SEED)]
Device = Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda if there is a GPU).")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.")]
Precision = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
PictureBatch = Annotated[int | None, typer.Option("--batch", min=1, help="Pictures that are made at once.")]

Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N, counted from 0, into a folder of its own in --out "
        "(default: as torchrun or a SLURM array say, else all).",
    ),
]

# What is read.
MostMegapixels = Annotated[
    float, typer.Option(min=0, help="Refuse larger pictures, before they are decoded.")
]

# What is asked for.
From = Annotated[str, typer.Option("--from", help="Text that describes what is given.")]
To = Annotated[str, typer.Option("--to", help="Text that describes what it should become.")]
Loss = Annotated[
    str | None,
    typer.Option(
        help="The loss that guides: geodesic (by the world's recipe the directional one with a chord), "
        "directional, global or spherical (default: by recipe)."
    ),
]
Strength = Annotated[
    float | None, typer.Option(help="Weight of the loss that moves the result towards --to.")
]
Screen = Annotated[
    str | None,
    typer.Option(help="For an edit layer: text that describes the layer alone, over a green background."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimisation steps (default: by method).")]
Size = Annotated[int | None, typer.Option(min=8, help="Longest side in pixels at which the edit is made.")]

# CLIP.
CLIP = (
    "world for the built-in one, or one that open_clip knows: ARCHITECTURE/TAG, hf-hub:ORGANISATION/MODEL, "
    "local-dir:FOLDER, or an ARCHITECTURE with --clip-weights (ViT-B-32-quickgelu for OpenAI's weights)"
)
Clip = Annotated[str, typer.Option("--clip", help=f"The CLIP that guides: {CLIP}.")]
ClipWeights = Annotated[
    Path | None,
    file_option("Weights file of the CLIP: safetensors, a torch state dict, or OpenAI's own archive."),
]
ClipTokenizer = Annotated[
    Path | None, folder_option("Folder of the CLIP's tokenizer, where that is on the hub otherwise.")
]
LpipsWeights = Annotated[
    Path | None,
    file_option("Weights file of LPIPS, AlexNet's (of eval SqueezeNet's), where it cannot be downloaded."),
]

# Diffusion models and generators.
DiffusionModel = Annotated[
    str,
    typer.Option(
        "--model",
        help="The diffusion model: world or world-flow for a built-in one, a folder in diffusers' format, "
        "organisation/model of the hub, or one file with all weights.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        help="Which files of the model's folder: fp16 for *.fp16.safetensors "
        "(default: those without a variant, or the only one)."
    ),
]
ModelConfig = Annotated[
    Path | None,
    folder_option(
        "For a model in a single file: the folder of its pipeline, which needs no weights "
        "(default: the hub's)."
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(help="A tiny autoencoder to decode by for CLIP: world, a folder, or a name on the hub."),
]
SamplingSteps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps of the diffusion model's sampler.")
]
Solver = Annotated[
    str | None,
    typer.Option(
        help="How a rectified flow is inverted: euler, midpoint, rf_solver or fireflow (default: midpoint)."
    ),
]
GuidanceScale = Annotated[
    float | None,
    formerly(typer.Option(min=0, help="Scale of classifier-free guidance; 1 is no guidance."), "--guidance"),
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long for a model, and say so.")
]
Mp4 = Annotated[bool, typer.Option("--mp4", help="Write MP4 files beside the GIFs.")]
Truncation = Annotated[
    float | None,
    typer.Option(min=0, help="Truncation of the generator's w; 1 is none, 0 draws only the mean picture."),
]


def device_of(wanted: str | None) -> str:
    """The device to run on; cuda where there is one and none is asked for.

    Of several processes that torchrun starts on a machine, each takes a GPU of its own.
    """
    import torch

    if wanted is None:
        if not torch.cuda.is_available():
            return "cpu"
        local = os.environ.get("LOCAL_RANK", "")
        return f"cuda:{int(local) % torch.cuda.device_count()}" if local.isdecimal() else "cuda"
    if wanted.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {wanted!r}")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device must be one torch can use, got cuda, and torch sees no CUDA device")
    return wanted
