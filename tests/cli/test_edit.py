"""geokernels edit runs, resumes to the same bits, reuses an inversion, and says what is wrong."""

import json
import signal

import pytest
import torch
from typer.testing import CliRunner

from geokernels.cli import app
from geokernels.cli.console import BAD_INPUT, INTERRUPTED
from geokernels.media.pictures import read_picture, write_picture
from geokernels.pipelines.edit.oig import OIGEdit
from geokernels.runs.record import require_record

pytest.importorskip("diffusers")

RED, BLUE, GREEN = "a red circle", "a blue circle", "a green circle"


def run(*arguments):
    return CliRunner().invoke(app, ["edit", *map(str, arguments)])


@pytest.fixture(scope="module")
def arguments(pipeline_folder):
    return ["--model", pipeline_folder, "--from", "a", "--to", "b", "--steps", 4]


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "given.png"
    write_picture(path, torch.rand(3, 50, 70))
    return path


def test_texts_that_are_too_long_are_refused_before_the_inversion_or_cut(
    arguments, given, tmp_path, monkeypatch
):
    long = " ".join(["ab"] * 40)
    options = ["--model", arguments[1], "--from", "a", "--to", long, "--steps", 3, "--size", 32]

    def invert(*args, **kwargs):
        raise AssertionError("inverted")

    with monkeypatch.context() as patched:
        patched.setattr("geokernels.pipelines.edit.flow_inversion.invert", invert)
        found = run(given, *options, "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "Error: --to must have at most 77 tokens, got 82" in found.stderr
    assert found.stderr.rstrip().endswith("; shorten it, or add --truncate")
    found = run(given, *options, "--truncate", "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "Warning: --to is too long for a model and was cut to 'ab ab" in found.stderr
    (kept,) = json.loads((tmp_path / "out" / "run.json").read_text())["to"]
    assert long.startswith(kept)
    assert 60 < len(kept) < len(long)


def test_edits_a_picture_and_keeps_its_inversion(arguments, given, tmp_path):
    out = tmp_path / "out"
    found = run(given, *arguments, "--to", "c", "--size", 64, "--out", out)
    assert found.exit_code == 0, found.output
    assert "inverting: 2 of 2 steps\n" in found.output
    assert "Loading" not in found.output  # bars of the libraries, in what is no terminal
    record = json.loads((out / "run.json").read_text())
    require_record(record)
    assert record["to"] == ["b", "c"]
    assert record["config"]["edit"]["recipe"] == "published"  # the pipeline is not the embedded one
    assert record["config"]["edit"]["gradient"] == "released"
    assert torch.tensor(record["history"]["edit"]).shape == (4, 2, len(record["terms"]["edit"]))
    assert set(record["files"]) == {
        "given.png", "source.png", "edits.png", "edit-00.png", "edit-01.png", "edit.gif",
        "report.html", "inversion.pt",
    }  # fmt: skip
    # the longest side is the one asked for, the other the nearest that the model can take
    assert read_picture(out / "edit-01.png").rgb.shape == (3, 48, 64)
    page = (out / "report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page.replace("http://www.w3.org", "")

    again = tmp_path / "again"
    found = run(given, *arguments, "--size", 64, "--out", again, "--inversion", out / "inversion.pt")
    assert found.exit_code == 0, found.output
    first, second = (read_picture(folder / "edit-00.png").rgb for folder in (out, again))
    assert (first - second).abs().max() <= 1 / 255
    other = ["--model", arguments[1], "--from", "c", "--to", "b", "--steps", 4]
    found = run(given, *other, "--out", tmp_path / "other", "--inversion", out / "inversion.pt")
    assert found.exit_code == BAD_INPUT
    assert "the inversion must be of --from 'c'" in found.output


def test_interrupted_and_resumed(arguments, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert run(*arguments, "--out", whole).exit_code == 0
    step = OIGEdit.step

    def interrupted(self):
        step(self)
        if self.index == 2:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out"
    monkeypatch.setattr(OIGEdit, "step", interrupted)
    found = run(*arguments, "--out", out)
    assert found.exit_code == INTERRUPTED
    assert "Stopped after step 2 of 4" in found.output
    monkeypatch.setattr(OIGEdit, "step", step)
    found = run(*arguments, "--out", out)
    assert found.exit_code == BAD_INPUT
    assert "add --resume" in found.output
    assert run(*arguments, "--out", out, "--resume").exit_code == 0
    assert not (out / "checkpoint.pt").exists()
    for name in ("source.png", "edit-00.png", "edit.gif"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    histories = [json.loads((folder / "run.json").read_text())["history"] for folder in (out, whole)]
    assert histories[0] == histories[1]


def test_the_embedded_model_is_the_default(tmp_path):
    options = ["--decoder", "world", "--until", 0.5, "--checkpointing", "--cycle", 0.1, "--cycle-steps", 1]
    found = run("--from", RED, "--to", BLUE, "--to", GREEN, "--steps", 2, "--out", tmp_path, *options)
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["model"], record["decoder"], record["dtype"]) == ("world", "world", "float32")
    assert record["history"]["edit"][1][0] == [None] * len(record["terms"]["edit"])
    assert record["terms"]["edit"][-2:] == ["cycle", "source_cycle"]
    assert (record["config"]["edit"]["cycle"], record["config"]["edit"]["cycle_steps"]) == (0.1, 1)


def test_sdxl(random_pipeline, tmp_path):
    folder = random_pipeline("StableDiffusionXLPipeline")
    options = ["--model", folder, "--from", "a", "--to", "b", "--steps", 2, "--dtype", "bfloat16"]
    found = run(*options, "--out", tmp_path)
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "run.json").read_text())["dtype"] == "bfloat16"


def test_a_captioner_says_what_the_picture_shows(arguments, given, tmp_path, monkeypatch):
    from geokernels.models import captioner

    asked = []

    def load(name, *, device):
        asked.append(name)
        return lambda pictures: ["c d" for _ in pictures]

    monkeypatch.setattr(captioner, "load_captioner", load)
    options = [*arguments[:2], *arguments[4:], "--size", 32, "--out", tmp_path / "out"]
    found = run(given, *options, "--captioner", "organisation/blip")
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["from"], record["captioner"], asked) == ("c d", "blip", ["organisation/blip"])
    other = [*options[:-1], tmp_path / "other"]
    assert "give either --from or --captioner" in run(given, *other).output
    assert "--captioner needs a picture" in run(*other, "--captioner", "organisation/blip").output


@pytest.mark.parametrize(
    "options, message",
    [
        (["--to", "a"], "must differ from its source"),
        (["--to", " "], "--to must not be empty, got ' '"),
        (["--from", ""], "--from must not be empty, got ''"),
        (["--gradient", "true"], "gradient must be one of exact, released"),
        (["--dtype", "int8"], "--dtype must be float32, bfloat16 or float16"),
        (["--inversion", "nowhere.pt"], "--inversion must be an existing file"),
        (["--until", "2"], "until must be a share of the steps"),
    ],
    ids=["the same text", "no target", "no source", "gradient", "dtype", "no inversion", "until"],
)
def test_refusals(arguments, tmp_path, options, message):
    found = run(*arguments, *options, "--out", tmp_path / "out")
    assert found.exit_code == BAD_INPUT
    assert message in found.output.replace("\n", " ")
    assert not (tmp_path / "out" / "inversion.pt").exists()


def test_so_few_steps_that_none_is_left_to_invert_are_refused(given, tmp_path):
    found = run(given, "--from", "a", "--to", "b", "--steps", 2, "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "Error: --steps must be at least 3 to invert a picture, got 2" in found.stderr
    assert not (tmp_path / "out").exists()


class TestRectifiedFlows:
    @pytest.fixture
    def flow(self, random_pipeline):
        model = random_pipeline("StableDiffusion3Pipeline")
        return ["--model", model, "--from", "a", "--to", "b", "--steps", 3, "--size", 64]

    def test_edits_a_picture_stops_and_goes_on_to_the_same_bits(self, flow, given, tmp_path, monkeypatch):
        whole = run(given, *flow, "--solver", "fireflow", "--blocks", 1, "--out", tmp_path / "whole")
        assert whole.exit_code == 0, whole.output
        record = json.loads((tmp_path / "whole" / "run.json").read_text())
        require_record(record)
        config = record["config"]["edit"]
        assert (config["recipe"], config["solver"], config["blocks"]) == ("flow", "fireflow", 1)
        step, taken = OIGEdit._step, []

        def interrupted(self):
            taken.append(self.index)
            if len(taken) == 3:
                raise KeyboardInterrupt
            return step(self)

        again = [given, *flow, "--solver", "fireflow", "--blocks", 1, "--out", tmp_path / "again"]
        with monkeypatch.context() as patched:
            patched.setattr(OIGEdit, "_step", interrupted)
            assert run(*again).exit_code == INTERRUPTED
        assert run(*again, "--resume").exit_code == 0
        one, other = ((tmp_path / name / "edit-00.png").read_bytes() for name in ("whole", "again"))
        assert one == other

    @pytest.mark.parametrize(
        "options, message",
        [
            (["--cycle", "1"], "--cycle goes with U-Nets, got 1.0 with a rectified flow"),
            (["--solver", "heun"], "--solver must be one of euler, midpoint, rf_solver, fireflow"),
            (["--blocks", "0"], "--blocks must be above 0"),
        ],
    )
    def test_refusals(self, options, message, flow, given, tmp_path):
        found = run(given, *flow, *options, "--out", tmp_path / "out")
        assert found.exit_code == BAD_INPUT
        assert message in found.output.replace("\n", " ")

    def test_a_solver_is_theirs_alone(self, arguments, given, tmp_path):
        found = run(given, *arguments, "--solver", "euler", "--out", tmp_path / "out")
        assert found.exit_code == BAD_INPUT
        assert "--solver goes with Stable Diffusion 3 and FLUX" in found.output.replace("\n", " ")
