"""The options that name a diffusion model: folders, variants and single files, and which option is wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.testing.single_file import single_file

diffusers = pytest.importorskip("diffusers")

COMMANDS = {
    "edit": ["edit", "--from", "a", "--to", "b", "--steps", "4"],
    "interpolate": ["interpolate", "--prompt", "a", "--prompt", "b", "--distance", "none"],
    "eval": ["eval", "--world", "1", "--steps", "4"],
}


def run(command: str, tmp_path, *options):
    return CliRunner().invoke(app, [*COMMANDS[command], "--out", str(tmp_path / "out"), *map(str, options)])


@pytest.fixture
def half(pipeline_folder, tmp_path):
    """A folder with nothing but half precision in it."""
    plain = diffusers.StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    plain.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    return tmp_path / "half"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_option(command, half, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_mid_block.lora_up.weight": torch.zeros(1)}, lora)
    for options, said in [
        (("--model", "./none"), "Error: --model must be 'world' or 'world-flow', an existing folder or"),
        (("--model", half, "--variant", "bf16"), "Error: --variant must be one of fp16, which"),
        (
            ("--model", half, "--model-config", half),
            "Error: --model-config goes with a single file as --model",
        ),
        (
            ("--model", lora),
            "Error: --model must be a whole diffusion model where it is a file, lora.safetensors",
        ),
        (("--model", lora, "--variant", "fp16"), "Error: --variant goes with a folder as --model"),
    ]:
        done = run(command, tmp_path, *options)
        assert done.exit_code == 2
        assert said in done.stderr
        assert done.stderr.count("Error") == 1
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_other_models_name_their_options(pipeline_folder, tmp_path):
    model = ("--model", pipeline_folder)
    for option in ("--decoder", "--instruct"):
        done = run("eval", tmp_path, *model, option, "./none")
        assert f"Error: {option} must be 'world' or 'world-flow', an existing folder or file" in done.stderr


@pytest.mark.parametrize("options", [(), ("--variant", "fp16")])
def test_a_variant_is_drawn_from(half, tmp_path, options):
    done = run("interpolate", tmp_path, "--model", half, "--frames", 2, "--steps", 1, *options)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"] == "half"


def test_a_single_file_is_drawn_from(random_pipeline, tmp_path):
    folder = random_pipeline("StableDiffusionPipeline")
    state = single_file(diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None))
    save_file(state, tmp_path / "civitai.safetensors")
    config = shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    model = ("--model", tmp_path / "civitai.safetensors", "--model-config", config)
    done = run("interpolate", tmp_path, *model, "--frames", 2, "--steps", 1)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"] == "civitai.safetensors"
