"""Every command run whole on models of real size with random weights: processor time and peak memory.

    python -m benchmarks.cost.whole --files runs/real-sizes --out benchmarks/results/whole-runs.json

Each command is a process of its own, from the command line to its report, for the fewest steps that show each
kind of step. The files of the models, in the formats of released ones, are made in ``--files`` where they are
missing: about 5 GB. Commands that are in ``--out`` already are not run again; name some to run only these.

  processor s   of the whole process, libraries and models loaded included
  peak GiB      resident memory of the process at its highest, libraries and weights included
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.media.pictures import write_picture
from geokernels.models import Generator, GeneratorConfig, save_generator
from geokernels.world import render, render_clip, sample_scenes, write_edit_folder

from ..harness.machine import machine
from .counting import GIB
from .edit import pipeline_of_shape

TEXTS = ("a photo of a circle", "a photo of a star")
WORDS = ["--from", TEXTS[0], "--to", TEXTS[1]]
FRAMES = 6
SIZES = {
    "morph": "ViT-B/32, 512 pixels",
    "morph --method text2live": "ViT-B/32, 512 pixels",
    "video": f"ViT-B/32, {FRAMES} frames of 768 x 432",
    "adapt": "StyleGAN2 of 1024 pixels, ViT-B/32 and B/16",
    "edit": "Stable Diffusion 1.4, ViT-B/32, 512 pixels",
    "eval": "Stable Diffusion 1.4, ViT-B/32, 512 pixels",
    "interpolate": "Stable Diffusion 1.4, 512 pixels",
}
# beside the models, the texts and the folders
SETTINGS = {
    "morph": "--recipe published --size 512 --steps 4",
    "morph --method text2live": "--recipe published --size 512 --steps 2",
    "video": "--recipe published --fit-steps 2 --steps 2",
    "adapt": "--recipe published --chunk 1 --steps 1",
    "edit": "--recipe published --checkpointing --steps 4",
    "eval": "--recipe published --steps 3 --method oig:checkpointing=true --method ddim_swap",
    "interpolate": "--frames 3 --steps 2 --distance none",
}


def clip_file(name: str, path: Path) -> None:
    """A CLIP's state dict in half precision, as released ones are."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False)
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)


def generator_file(path: Path) -> None:
    """A StyleGAN2 of 1024 pixels."""
    torch.manual_seed(0)
    save_generator(Generator(GeneratorConfig.standard(1024)), path)


def pipeline_folder(path: Path) -> None:
    """A pipeline of Stable Diffusion 1.4's shapes in half precision, its text encoder included."""
    import transformers

    torch.manual_seed(0)
    pipeline = pipeline_of_shape("sd14")
    letters = pipeline.text_encoder.config
    pipeline.text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=letters.bos_token_id,
            eos_token_id=letters.eos_token_id,
            pad_token_id=letters.pad_token_id,
        )
    ).eval()
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.half()
    pipeline.save_pretrained(path)


def picture_file(path: Path) -> None:
    """A rendered picture of 512 pixels."""
    chance = torch.Generator().manual_seed(7)
    write_picture(path, render(sample_scenes(1, generator=chance), size=512)[0])


def clip_folder(path: Path) -> None:
    """A rendered clip: its frames, and the masks of what moves."""
    chance = torch.Generator().manual_seed(0)
    truth = render_clip(sample_scenes(1, generator=chance), FRAMES, 768, generator=chance)
    for index, (frame, mask) in enumerate(zip(truth.frames, truth.masks)):
        write_picture(path / "frames" / f"{index:03}.png", frame[:, 168:600])
        write_picture(path / "masks" / f"{index:03}.png", mask.expand(3, -1, -1)[:, 168:600])


MADE: dict[str, Callable[[Path], None]] = {
    "ViT-B-32.safetensors": lambda path: clip_file("ViT-B-32", path),
    "ViT-B-16.safetensors": lambda path: clip_file("ViT-B-16", path),
    "stylegan2-1024.pt": generator_file,
    "sd14": pipeline_folder,
    "picture.png": picture_file,
    "clip": clip_folder,
    "edits": lambda path: write_edit_folder(path, 1, size=512),
}


def make_files(folder: Path) -> None:
    """What is missing, each by itself under another name until it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MADE.items():
        if (folder / name).exists():
            continue
        print(f"making {name}", flush=True)
        partial = folder / f"partial-{name}"
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        make(partial)
        partial.rename(folder / name)


def arguments_of(name: str, files: Path, out: Path) -> list[str]:
    """Of the command."""
    clip = ["--clip", "ViT-B-32", "--clip-weights", str(files / "ViT-B-32.safetensors")]
    second = ["--clip", "ViT-B-16", "--clip-weights", str(files / "ViT-B-16.safetensors")]
    model = ["--model", str(files / "sd14")]
    given = {
        "morph": [str(files / "picture.png"), *WORDS, *clip],
        "morph --method text2live": [str(files / "picture.png"), *WORDS, *clip],
        "video": [str(files / "clip/frames"), "--masks", str(files / "clip/masks"), *WORDS, *clip],
        "adapt": [*WORDS, "--model", str(files / "stylegan2-1024.pt"), *clip, *second],
        "edit": [str(files / "picture.png"), *WORDS, *model, *clip],
        "eval": [str(files / "edits"), *model, *clip],
        "interpolate": [*model, "--prompt", TEXTS[0], "--prompt", TEXTS[1]],
    }[name]
    return [
        *name.split(),
        *given,
        *SETTINGS[name].split(),
        "--out",
        str(out),
        "--overwrite",
        "--device",
        "cpu",
    ]


def run(name: str, files: Path) -> dict[str, float]:
    """Processor time in seconds and the peak in GiB of one command.

    Raises:
        RuntimeError: If it fails.
    """
    command = [sys.executable, "-m", "geokernels", *arguments_of(name, files, files / "out")]
    print(" ".join(command[2:]), flush=True)
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"geokernels {name} ended with {process.returncode}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "peak_gib": usage.ru_maxrss * 1024 / GIB}


def as_markdown(summary: dict) -> str:
    """A line for every command that was run."""
    lines = ["| command | models, size | settings | processor s | peak GiB |", "|---|---|---|---|---|"]
    for name, row in summary["runs"].items():
        cells = (
            f"`{name}`",
            SIZES[name],
            f"`{SETTINGS[name]}`",
            f"{row['seconds']:.0f}",
            f"{row['peak_gib']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=Path, required=True, help="folder of the models")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("commands", nargs="*", help="run these alone, again where they were run before")
    args = parser.parse_args()
    if unknown := [name for name in args.commands if name not in SIZES]:
        parser.error(f"a command must be one of {', '.join(SIZES)}, got {unknown[0]!r}")
    # by itself: to the kernel, the peak of a process is never below that of the one that began it
    making = multiprocessing.get_context("spawn").Process(target=make_files, args=(args.files,))
    making.start()
    making.join()
    if making.exitcode:
        raise SystemExit(making.exitcode)
    runs = json.loads(args.out.read_text(encoding="utf-8"))["runs"] if args.out.exists() else {}
    for name in args.commands or [name for name in SIZES if name not in runs]:
        runs[name] = run(name, args.files)
        ordered = {known: runs[known] for known in SIZES if known in runs}
        write_json(args.out, {"runs": ordered, "machine": machine(), "versions": versions()})
        print(as_markdown({"runs": ordered}), flush=True)


if __name__ == "__main__":
    main()
