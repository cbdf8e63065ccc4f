"""The command line of trainings in an autoencoder's latents."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL


def train_on_latents(
    description: str, training: Callable, config, quick, *, name: str, vae: Path | None = None
) -> None:
    """Read the command line, train what is left to train, and write the pipeline.

    Args:
        description: Of the program.
        training: Makes one of a config, an autoencoder and a folder.
        config: Of the shipped weights.
        quick: Of a tiny network.
        name: Of the pipeline's folder in that of the checkpoint.
        vae: Where the autoencoder is if no folder is given; None where one must be.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vae",
        type=Path,
        default=vae,
        required=vae is None,
        help="folder that training.vae wrote to" + (", or a pipeline's with its autoencoder" if vae else ""),
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; resumes there")
    parser.add_argument("--export", action="store_true", help="write the pipeline as it stands, do not train")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = replace(quick if arguments.quick else config, seed=arguments.seed)
    autoencoder = AutoencoderKL.from_pretrained(arguments.vae / "vae", dtype=torch.float32)
    run = training(chosen, autoencoder.requires_grad_(False).eval(), arguments.out)
    if not arguments.export:
        run.run()
    print(run.export(arguments.out / name, arguments.vae))
