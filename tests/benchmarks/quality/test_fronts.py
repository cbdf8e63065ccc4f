"""The benchmark of losses counts what it says, goes on where it was, and its fronts are fronts."""

import importlib
import json

import pytest
import torch

from benchmarks.quality import plasticity as bench
from benchmarks.quality import plasticity_adapt as adaptations
from benchmarks.quality import plasticity_morph as inversions
from benchmarks.quality.fronts import LOSSES, START, front, hypervolume, share_interval, summarise
from benchmarks.quality.lines import finished, line_of, work_through
from benchmarks.quality.loss_gradients import pulls
from geokernels import subspace_basis, world
from geokernels.losses.directional import unit_rows
from geokernels.media.pictures import read_picture
from geokernels.pipelines import AdaptationConfig, ClipInversionConfig, LayerEditConfig
from geokernels.pipelines.guidance.terms import Texts

# the package exports a function of the same name
clip_inversion = importlib.import_module("geokernels.pipelines.morph.clip_inversion")


def names(**changes):
    plain = {"shape": "star", "colour": "red", "background": "blue", "size": "small", "texture": "plain"}
    return {**plain, **changes}


def test_only_samples_that_could_change_are_asked():
    before = [names(), names(background="green"), names(colour="green"), names(shape="moon")]
    after = [names(background="green"), names(), names(), names(shape="ring", background="white")]
    # the second shows it already, the third has an object of that colour
    assert adaptations.score(before, after, "background", "green") == {
        "samples": 2,
        "reached": 0.5,
        "kept": 7 / 8,
    }


def test_adaptations_ask_for_every_attribute_in_turn():
    found = [adaptations.asked(i, seed=1000) for i in range(60)]
    assert [f[0] for f in found[:5]] == list(adaptations.ORDER)
    assert {f[1] for f in found if f[0] == "colour"} == set(world.ATTRIBUTES["colour"])
    assert all(f[3] == world.describe({f[0]: f[1]}) for f in found)


def test_a_front_holds_what_nothing_beats():
    points = {"a": (0.2, 0.9), "b": (0.5, 0.5), "c": (0.4, 0.5), "d": (0.5, 0.4), "e": (0.9, 0.1)}
    assert front(points) == ["a", "b", "e"]


def test_the_hypervolume_is_the_area_below_the_front():
    assert hypervolume([(0.5, 1.0), (1.0, 0.5), (0.4, 0.4)]) == pytest.approx(0.75)
    assert hypervolume([(0.3, 0.2)]) == pytest.approx(0.06)
    assert hypervolume([]) == 0


def row(index, shift=0.0, **more):
    found = {loss: {"1": {"reached": 0.5 + shift, "kept": 0.9, **more}} for loss in (START, *LOSSES)}
    found["geodesic"]["2"] = {"reached": 0.8 + shift, "kept": 0.7 - shift, **more}
    return {"index": index, "found": found}


def test_points_have_intervals_and_losses_are_compared_trial_by_trial():
    losses = summarise([row(0), row(1, 0.1), row(2, 0.2)])
    point = losses["geodesic"]["points"]["1"]["reached"]
    assert point["share"] == pytest.approx(0.6)
    assert point["low"] < 0.6 < point["high"]
    assert losses["geodesic"]["front"] == ["1", "2"]
    # one point more, so more area in every resampling; the same points, so none
    assert losses["geodesic"]["less directional"][0] > 0
    assert losses["spherical"]["less directional"] == [0, 0]
    low, high = losses["directional"]["hypervolume interval"]
    assert losses["directional"]["hypervolume"] == pytest.approx(0.6 * 0.9)
    assert low < 0.6 * 0.9 < high
    assert "less directional" not in losses["directional"]


def test_all_or_nothing_never_gets_an_interval_without_width():
    assert share_interval([1.0] * 20)["low"] < 1
    assert share_interval([0.5, 0.7])["share"] == pytest.approx(0.6)


@pytest.fixture
def args():
    def make(*options):
        return ["--out", options[0], "--workers", "1", "--edits", "0", "--adaptations", "0", *options[1:]]

    return make


def test_lines_become_tables_a_picture_and_a_page(tmp_path, args, capsys):
    edits = {"method": "clip-inversion"} | bench._header(
        ClipInversionConfig(recipe="world"), 1000, inversions.STRENGTHS
    )
    adapted = bench._header(AdaptationConfig(recipe="world"), 1000, adaptations.STRENGTHS)
    for name, header, more in (("edits", edits, {"psnr": 30.0}), ("adaptations", adapted, {})):
        lines = [header, row(0, **more), row(1, 0.2, **more)]
        (tmp_path / f"{name}.jsonl").write_text("".join(map(line_of, lines)))
    bench.main(args(str(tmp_path)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["pipelines"]) == ["clip-inversion", "adapt"]
    assert summary["pipelines"]["adapt"]["trials"] == 2
    table = capsys.readouterr().out
    assert "| geodesic | 2 | 90.0% [70.4, 100.0] | 60.0% [40.4, 79.6] | 30.0 dB | yes |" in table
    assert "| geodesic | 2 | 90.0% [70.4, 100.0] | 60.0% [40.4, 79.6] | yes |" in table
    assert read_picture(tmp_path / "fronts.png").rgb.shape[2] > 1000  # a panel each
    page = (tmp_path / "fronts.html").read_text()
    assert page.count("<h2>") == 3
    assert page.count("<td>90.0% [70.4, 100.0]</td>") == 2


def test_nothing_to_tell_is_said(tmp_path, args):
    with pytest.raises(SystemExit, match="holds no trials"):
        bench.main(args(str(tmp_path)))


def test_lines_of_other_settings_are_refused(tmp_path, args):
    (tmp_path / "edits.jsonl").write_text(line_of({"method": "another"}))
    with pytest.raises(SystemExit, match="other settings"):
        bench.main(args(str(tmp_path)))


def test_work_goes_on_where_a_line_was_cut_short(tmp_path):
    path, header = tmp_path / "lines.jsonl", {"seed": 1}
    path.write_text(line_of(header) + line_of({"index": 1, "done": "before"}) + '{"index": 0, "do')
    rows = work_through(path, header, [(0,), (1,), (2,)], noted, start=set_up, given=("now",), workers=1)
    assert rows == [{"index": 0, "done": "now"}, {"index": 1, "done": "before"}, {"index": 2, "done": "now"}]
    assert len(path.read_text().splitlines()) == 4
    assert work_through(path, header, [(2,)], None, start=None, workers=1) == rows


def set_up(word):
    global done
    done = word


def noted(task):
    return {"index": task[0], "done": done}


def test_strength_scales_what_pulls_and_nothing_else():
    plain = ClipInversionConfig(recipe="world")
    double = inversions.settings(plain, "clip-inversion", "geodesic", 2.0)
    assert double.weight("consistency") == 2 * plain.weight("consistency")
    assert double.weight("reach") == 2 * plain.weight("reach")
    same = ("regularisation", "opacity", "indecision", "steps", "guess", "learning_rate")
    assert all(getattr(double, name) == getattr(plain, name) for name in same)
    layered = inversions.settings(LayerEditConfig(recipe="world"), "text2live", "directional", 0.5)
    assert (layered.strength, layered.spherical, layered.screen, layered.structure) == (0.5, 0.5, 0.5, 2.0)


@pytest.mark.filterwarnings("default")
def test_an_edit_is_one_line_of_every_loss_from_one_guess(monkeypatch):
    pytest.importorskip("open_clip")
    searched = []
    monkeypatch.setattr(clip_inversion, "search_guess", lambda *a, **k: searched.append(a))
    threads = torch.get_num_threads()
    inversions.start_worker()
    torch.set_num_threads(threads)
    config = ClipInversionConfig(recipe="world", steps=1, views=1)
    line = inversions.run_edit((1, 3, config, "clip-inversion", (0.5, 1.0)))
    assert len(searched) == 1
    assert line["attribute"] == "background"
    assert set(line["found"]) == {START, *LOSSES}
    assert set(line["found"]["geodesic"]) == {"0.5", "1"}
    # nothing was found: the edits start from the source, which keeps everything
    start = line["found"][START]["1"]
    assert (start["reached"], start["kept"]) == (0.0, 1.0)
    assert start["psnr"] > 55  # what 8 bits a channel leave
    assert json.loads(json.dumps(line)) == line


def test_of_one_picture_the_geodesic_and_the_directional_loss_pull_alike():
    chance = torch.Generator().manual_seed(0)
    current, source, previous, before, after = unit_rows(torch.randn(5, 1, 8, generator=chance))
    current.requires_grad_()
    texts = Texts(before, after, subspace_basis(unit_rows(after - before), 1).basis)
    found = pulls(current, source, previous, texts, ClipInversionConfig(recipe="world"), [current])
    assert found["geo~dir"] == pytest.approx(1, abs=1e-4)
    assert found["agreement"] == pytest.approx(1)
    assert abs(found["geo~sph"]) < 0.99
    assert found["step"] > 0


def test_a_damaged_line_is_named(tmp_path):
    path, header = tmp_path / "lines.jsonl", {"seed": 1}
    good = line_of(header) + line_of({"index": 0, "share": 0.5})
    for line, said in (
        (line_of({"index": 1, "share": 0.5}).replace("0.5", "0.7"), "its checksum is of other contents"),
        ('{"index": 1, "share": 0.7}\n', "it lacks its checksum"),
        ("[3\n", "Expecting"),
        ("[" * 100_000 + "\n", ""),
    ):
        path.write_text(good + line)
        with pytest.raises(SystemExit, match=rf"line 3 of {path} is damaged.*{said}.*remove the line"):
            work_through(path, header, [(2,)], None, start=None, workers=1)
        assert path.read_text() == good + line


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"index": 1}\n', ""])
def test_lines_of_another_kind_are_not_removed(text, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    if text:
        with pytest.raises(SystemExit, match="choose another --out"):
            finished(path, {"seed": 1})
        assert path.read_text() == text
    path.write_text(line_of({"seed": 1})[: len(text)])  # a header cut short is begun again
    assert finished(path, {"seed": 1}) == {}
