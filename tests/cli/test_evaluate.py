"""geokernels eval measures methods, resumes to the same pictures, lists failures, and says what is wrong."""

import csv
import json
import signal

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.cli.console import BAD_INPUT, INTERRUPTED
from geokernels.cli.evaluate import _contenders
from geokernels.media.pictures import write_picture
from geokernels.pipelines import comparators
from geokernels.pipelines.comparators import METHODS
from geokernels.runs import evaluate
from geokernels.runs.edit_batch import FAULTS, FaultError
from geokernels.runs.measures import Measures
from geokernels.runs.record import require_record

pytest.importorskip("diffusers")
pytest.importorskip("torchmetrics")


def run(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture(scope="module")
def options(pipeline_folder):
    swap = "ddim_swap:guidance_scale=2,negative=empty"
    return ["--model", pipeline_folder, "--steps", 3, "--batch", 2, "--method", "masactrl", "--method", swap]


def rows_of(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def pictures_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "pictures").rglob("*.png"))}


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    found = run("--world", 3, *options, "--out", out)
    assert found.exit_code == 0, found.output
    return out


def test_leaves_tables_pictures_and_a_page(whole):
    rows, record = rows_of(whole), json.loads((whole / "run.json").read_text())
    swap = "ddim_swap:guidance_scale=2,negative=empty"
    assert [row["method"] for row in rows] == ["masactrl", swap] * 3
    require_record(record)
    assert record["methods"][rows[1]["method"]]["settings"] == {"guidance_scale": 2, "negative": "empty"}
    for row in rows:
        assert row["failure"] == ""
        assert float(row["seconds"]) > 0
        # one of the inversion, which leaves out two of three steps; a pair a step, beside the source's pass
        assert float(row["passes"]) == {"masactrl": 1 + 3 * 3, swap: 1 + 3 * 2}[row["method"]]
        assert all(row[name] != "" for name in evaluate.COLUMNS)
    assert len(pictures_of(whole)) == 6
    assert set(pictures_of(whole)) < set(record["files"])
    with (whole / "summary.csv").open() as file:
        swap = list(csv.DictReader(file))[1]
    assert swap["edits"] == "3"
    mean = sum(float(row["structure"]) for row in rows[1::2]) / 3
    assert float(swap["structure"]) == pytest.approx(mean)
    table = (whole / "summary.md").read_text().splitlines()
    assert len(table) == 6  # head, rule, two methods, and below them the conventions
    assert table[3].startswith("| ddim_swap:guidance_scale=2,negative=empty | 3 | 0 | ")
    page = (whole / "report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_interrupted_resumed_and_added_to(whole, options, tmp_path, monkeypatch):
    write = evaluate.EvalFolder.write

    def interrupted(self, row, picture):
        if row["method"] == "masactrl" and len(pictures_of(self.path)) == 4:
            signal.raise_signal(signal.SIGINT)
        return write(self, row, picture)

    first = options[:-2]  # without the swap, which is added when all is done
    monkeypatch.setattr(evaluate.EvalFolder, "write", interrupted)
    both, once = tmp_path / "both", tmp_path / "once"
    found = run("--world", 3, *options, "--out", both)
    assert found.exit_code == INTERRUPTED, found.output
    assert "with --resume continues" in found.output
    monkeypatch.setattr(evaluate.EvalFolder, "write", write)
    assert run("--world", 3, *options, "--out", both).exit_code == BAD_INPUT
    assert run("--world", 3, *options, "--out", both, "--resume").exit_code == 0

    assert run("--world", 2, *first, "--out", once).exit_code == 0
    assert (
        "had the method masactrl"
        in run("--world", 3, *options[:-4], *options[-2:], "--out", once, "--resume").output
    )
    assert run("--world", 3, *options, "--out", once, "--resume").exit_code == 0
    for folder in (both, once):
        assert pictures_of(folder) == pictures_of(whole)
        for row, expected in zip(rows_of(folder), rows_of(whole), strict=True):
            assert {**row, "seconds": ""} == {**expected, "seconds": ""}


def test_a_resumption_that_is_refused_leaves_the_results(options, tmp_path):
    out = tmp_path / "out"
    assert run("--world", 2, *options, "--out", out).exit_code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    other = [4 if option == 3 else option for option in options]
    for more in (
        ["--world", 2, *other],
        ["--world", 1, *options],
        ["--world", 3, *other],
        ["--world", 3, *options[:-2]],
    ):
        refused = run(*more, "--out", out, "--resume")
        assert refused.exit_code == BAD_INPUT, refused.output
        for path, content in before.items():
            # edits may have been added to the folder of edits, as their numbers allow
            assert path.read_bytes() == content or path.name == "mapping_file.json"
    assert run("--world", 2, *options, "--out", out, "--resume").exit_code == 0


def test_another_seed_replaces_the_edits_too(options, tmp_path):
    out = tmp_path / "out"
    assert run("--world", 2, *options, "--out", out).exit_code == 0
    (out / "edits" / "notes.txt").write_text("mine")
    before = pictures_of(out)
    refused = run("--world", 2, *options, "--out", out, "--seed", 1, "--resume")
    assert "must be new or hold edits of" in refused.output.replace("\n", " ")
    refused = run("--world", 1, *options, "--out", out, "--seed", 1, "--overwrite")
    assert "found other files" in refused.output.replace("\n", " ")
    assert pictures_of(out) == before
    (out / "edits" / "notes.txt").unlink()
    done = run("--world", 1, *options, "--out", out, "--seed", 1, "--overwrite")
    assert done.exit_code == 0, done.output
    assert len(pictures_of(out)) == 2 < len(before)


def test_failures_are_listed_and_count(options, tmp_path, monkeypatch):
    folder = tmp_path / "edits"
    world.write_edit_folder(folder, 4, size=64)
    cases = world.read_edit_folder(folder)
    cases[2].picture.unlink()
    cases[3].picture.write_bytes(b"no picture")
    method = METHODS["masactrl"]

    def failing(models, task, settings):
        if cases[1].target in task.targets:
            raise RuntimeError("it cannot be done\nmore about it")
        return method.run(models, task, settings)

    monkeypatch.setitem(comparators.METHODS, "masactrl", method._replace(run=failing))
    out = tmp_path / "out"
    found = run(folder, *options, "--out", out)
    assert found.exit_code == 0, found.output
    failures = [row["failure"] for row in rows_of(out)]
    # the edit beside the one that fails is made; a picture that cannot be read fails everywhere
    assert failures[:4] == ["", "", "RuntimeError: it cannot be done", ""]
    assert all("picture must be a file" in failure for failure in failures[4:6])
    assert all("picture must be PNG" in failure for failure in failures[6:])
    summary = json.loads((out / "run.json").read_text())["summary"]
    assert [(found["edits"], found["failed"]) for found in summary.values()] == [(4, 3), (4, 2)]
    assert [found["reached"]["n"] for found in summary.values()] == [4, 4]
    assert [found["structure"]["n"] for found in summary.values()] == [1, 2]
    assert "it cannot be done" in (out / "report.html").read_text()


def test_the_traceback_of_a_failure_is_kept_and_not_shown(options, tmp_path, monkeypatch):
    def failing(models, task, settings):
        raise RuntimeError("it cannot be done")

    method = METHODS["masactrl"]._replace(run=failing)
    monkeypatch.setitem(comparators.METHODS, "masactrl", method)
    assert run("--world", 1, *options, "--out", tmp_path).exit_code == 0
    rows = [row for _, row in evaluate.EvalFolder(tmp_path).lines]
    failed, made = sorted(rows, key=lambda row: row["failure"] is None)
    assert failed["failure"] == "RuntimeError: it cannot be done"
    assert failed["traceback"].startswith("Traceback (most recent call last)")
    assert "in failing" in failed["traceback"]
    assert (made["failure"], made["traceback"]) == (None, None)
    page = (tmp_path / "report.html").read_text()
    assert "it cannot be done" in page
    assert "Traceback" not in page + (tmp_path / "results.csv").read_text()


@pytest.mark.parametrize(
    "fault",
    [
        lambda: None.nothing,
        lambda: len(3),
        lambda: {}["nothing"],
        lambda: [][1],
        lambda: nothing,  # noqa: F821
        lambda: 1 / 0,
    ],
    ids=["attribute", "type", "key", "index", "name", "zero"],
)
@pytest.mark.parametrize("where", ["method", "measure"])
def test_a_fault_of_ours_is_no_failure_of_a_method(where, fault, options, tmp_path, monkeypatch):
    if where == "method":
        method = METHODS["masactrl"]._replace(run=lambda models, task, settings: fault())
        monkeypatch.setitem(comparators.METHODS, "masactrl", method)
    else:
        monkeypatch.setattr(Measures, "__call__", lambda *args: fault())
    done = run("--world", 1, *options, "--out", tmp_path)
    assert isinstance(done.exception, FaultError), done.output
    assert isinstance(done.exception.__cause__, FAULTS)
    assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()
    assert run("--world", 1, *options, "--out", tmp_path, "--resume").exit_code == 0


def test_sdxl_and_pictures_of_other_kinds(random_pipeline, tmp_path):
    # an entry of PIE-Bench itself: no attribute, a prompt of its own, a picture that is not square
    folder = tmp_path / "edits"
    world.write_edit_folder(folder, 1, size=64)
    path = folder / "mapping_file.json"
    entry = next(iter(json.loads(path.read_text()).values()))
    entry |= {"original_prompt": "a [cat]", "editing_prompt": "a [dog]", "mask": [0, 512 * 512]}
    del entry["attribute"]
    path.write_text(json.dumps({"one": entry}))
    write_picture(folder / "annotation_images" / entry["image_path"], torch.rand(3, 40, 90))
    model = random_pipeline("StableDiffusionXLPipeline")
    options = [
        "--model",
        model,
        "--steps",
        3,
        "--dtype",
        "bfloat16",
        "--method",
        "ddim_swap",
        "--method",
        "ledits",
    ]
    out = tmp_path / "out"
    found = run(folder, *options, "--out", out)
    assert found.exit_code == 0, found.output
    swap, ledits = rows_of(out)
    assert "takes Stable Diffusion 1 and 2, got StableDiffusionXLPipeline" in ledits["failure"]
    assert swap["failure"] == ""
    assert float(swap["clip_score"]) >= 0
    # nothing is outside of the mask, and the judge knows nothing of dogs
    assert swap["psnr_outside"] == swap["perceptual_outside"] == swap["reached"] == ""
    assert len(pictures_of(out)) == 1


def test_a_setting_by_its_older_name(capsys):
    (contender,) = _contenders(["oig:guidance=5"], instructed=False, recipe=None)
    assert contender.settings.guidance_scale == 5
    assert "Warning: --method oig: guidance is called guidance_scale now;" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--method", "photoshop"], "--method must be one of no_edit, oig, ddim_swap"),
        (["--method", "oig:step_count=3"], "--method oig has recipe, guidance_scale, clip"),
        (["--method", "masactrl:start=2"], "start must lie between 0 and 1"),
        (["--method", "oig:cycle=-1,cycle_steps=null"], "cycle must be a finite number"),
        (["--method", "masactrl:start=late"], "masactrl: start must be a number, got 'late'"),
        (["--method", "oig:checkpointing=1"], "oig: checkpointing must be true or false, got '1'"),
        (["--method", "instruct_pix2pix"], "--method instruct_pix2pix needs --instruct"),
        (["--skip", "30"], "--skip must leave some of the 50 steps at both ends, got 30"),
        (["--method", "oig", "--method", "oig"], "once"),
        ([".", "--world", "2"], "give either a folder of edits or --world"),
        (["nowhere"], "FOLDER must be an existing folder"),
    ],
    ids=[
        *("method", "field", "value", "weight", "kind", "flag", "instruct", "skip"),
        *("twice", "both", "no folder"),
    ],
)
def test_refusals(options, message, pipeline_folder, tmp_path):
    found = run(*options, "--model", pipeline_folder, "--out", tmp_path / "out")
    assert found.exit_code == BAD_INPUT
    assert message in found.output.replace("\n", " ")


def test_a_recipe_is_of_the_methods_that_have_several(tmp_path):
    for wanted in ("published", "world"):
        oig, named, swap = _contenders(
            ["oig", "oig:recipe=world", "no_edit"], instructed=False, recipe=wanted
        )
        assert (oig.settings.recipe, named.settings.recipe) == (wanted, "world")
        assert not hasattr(swap.settings, "recipe")
    for method, recipe, said in (
        ("no_edit", "world", "--recipe goes with methods that have several, got world for no_edit"),
        ("oig", "best", "--recipe must be one of "),
    ):
        refused = run("--world", 1, "--method", method, "--recipe", recipe, "--out", tmp_path / "out")
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert not (tmp_path / "out").exists()
