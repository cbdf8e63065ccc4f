"""The benchmark of losses counts what it says, goes on where it was, and its fronts are fronts."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.quality import loss_contrast
from benchmarks.quality import plasticity as bench
from benchmarks.quality import plasticity_adapt as adaptations
from benchmarks.quality import plasticity_edits as edits
from benchmarks.quality.fronts import front, hypervolume, share_interval, summarise
from benchmarks.quality.lines import finished, line_of, work_through
from benchmarks.quality.loss_gradients import pulls
from benchmarks.quality.quick_clip import quick_clip
from geokernels import subspace_basis, world
from geokernels.losses.directional import unit_rows
from geokernels.media.pictures import read_picture
from geokernels.models import load_clip
from geokernels.pipelines import ClipInversionConfig
from geokernels.pipelines.guidance.terms import Texts


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
        "right": 0.5,
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
    def read(reached, kept):
        return {steps: {"reached": reached, "kept": kept, "right": reached, **more} for steps in ("5", "9")}

    found = {arm: {"1": read(0.5 + shift, 0.9)} for arm in bench.ARMS}
    found["geodesic"] = {"1": read(0.4 + shift, 0.9), "8": read(0.8 + shift, 0.7 - shift)}
    found["directional"]["8"] = read(0.5 + shift, 0.9)
    return {"index": index, "found": found}


def test_points_have_intervals_and_arms_are_compared_trial_by_trial():
    arms = summarise([row(0), row(1, 0.1), row(2, 0.2)])
    point = arms["geodesic"]["points"]["1"]["9"]
    assert point["reached"]["share"] == pytest.approx(0.5)
    assert point["reached"]["low"] < 0.5 < point["reached"]["high"]
    # a tenth less in every trial, whatever the spread of the trials
    assert point["right, less directional"] == pytest.approx({"share": -0.1, "low": -0.1, "high": -0.1})
    assert arms["geodesic"]["front"] == ["1", "8"]
    # an area more of each resampling; the same points, so none
    assert arms["geodesic"]["hypervolume, less directional"][0] > 0
    assert arms["geodesic with IMR"]["hypervolume, less directional"] == [0, 0]
    low, high = arms["directional"]["hypervolume interval"]
    assert arms["directional"]["hypervolume"] == pytest.approx(0.6 * 0.9)
    assert low < 0.6 * 0.9 < high
    assert not any("less" in key for key in (*arms["directional"], *arms["directional"]["points"]["1"]["9"]))


def test_all_or_nothing_never_gets_an_interval_without_width():
    assert share_interval([1.0] * 20)["low"] < 1
    assert share_interval([0.5, 0.7])["share"] == pytest.approx(0.6)


def test_lines_become_tables_and_drawings(tmp_path, capsys):
    for name, more in (("edits", {"psnr": 30.0}), ("long", {}), ("adaptations", {})):
        lines = [bench.STAGES[name].header(bench.SEED), row(0, **more), row(1, 0.2, **more)]
        (tmp_path / f"{name}.jsonl").write_text("".join(map(line_of, lines)))
    bench.main(["--out", str(tmp_path)])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["stages"]) == ["edits", "long", "adaptations"]
    assert summary["stages"]["adaptations"]["trials"] == 2
    table = capsys.readouterr().out
    apart = "+30.0 [+30.0, +30.0]"
    assert (
        f"| geodesic | 8 | 9 | 90.0% [70.4, 100.0] | 60.0% [40.4, 79.6] | 90.0% [70.4, 100.0] | {apart} |"
        in table
    )
    assert f"{apart} | 30.0 dB | +0.0 [+0.0, +0.0] |" in table
    fronts, curves = (read_picture(tmp_path / f"{name}.png").rgb.shape[2] for name in ("fronts", "curves"))
    assert (fronts, curves) == (2 * 594, 3 * 594)  # a panel a stage, and one a share


def test_nothing_to_tell_is_said(tmp_path):
    with pytest.raises(SystemExit, match="holds no trials"):
        bench.main(["--out", str(tmp_path)])


def test_lines_of_other_settings_are_refused(tmp_path):
    (tmp_path / "edits.jsonl").write_text(line_of({"method": "another"}))
    with pytest.raises(SystemExit, match="other settings"):
        bench.main(["--out", str(tmp_path)])


def test_a_stage_that_there_is_not_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["edit", "--out", str(tmp_path)])
    assert "got 'edit'" in capsys.readouterr().err


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
    for arm in bench.ARMS.values():
        plain, strong = (edits.settings(bench.EDITS, arm, factor) for factor in (1.0, 8.0))
        assert (plain.strength, strong.strength) == (1.0, 8.0)
        assert replace(strong, strength=1.0) == plain


def test_arms_are_the_published_losses():
    plain, alone, held = (edits.settings(bench.EDITS, arm, 1.0) for arm in bench.ARMS.values())
    assert plain.loss == "directional"
    assert alone == replace(held, regularisation=0.0)
    assert (held.rank, held.through_bases, held.chord, held.reach_weight) == (128, False, False, 0)
    assert held.guess > 1  # none is searched


def test_several_attributes_are_asked_and_judged_together():
    for index, ask, count in ((0, "two", 2), (4, "two", 2), (1, "three", 3)):
        what = edits.case(bench.SEED, index, ask)
        before, after = what.scene.names()[0], what.target.names()[0]
        assert {name for name in before if before[name] != after[name]} == set(what.asked)
        assert len(what.asked) == count
        made = edits.judged(world.render(what.target)[0], what)
        assert made == {"reached": 1.0, "kept": 1.0, "right": 1.0}
        left = edits.judged(world.render(what.scene)[0], what)
        assert left == {"reached": 0.0, "kept": 1.0, "right": 0.0}


def test_other_words_ask_for_the_same_edit():
    plain, other, unknown = (edits.case(bench.SEED, 1, ask) for ask in ("one", "order", "synonyms"))
    assert plain.target.names() == other.target.names() == unknown.target.names()
    assert world.understand(plain.texts[1]) == plain.target.names()[0]
    assert world.understand(other.texts[1]) is None
    encoder = load_clip()
    assert encoder.unknown_words(other.texts[1]) == []
    value = plain.target.names()[0]["background"]
    assert encoder.unknown_words(unknown.texts[1]) == [edits.SYNONYMS[value]]
    assert unknown.texts[0] == plain.texts[0]


def test_sentences_of_kinds_are_of_the_grammar_and_leave_the_asked_attribute_open():
    for attribute in adaptations.OF_KINDS:
        for sentence in adaptations.kinds(attribute):
            said = world.understand(sentence.format("object"))
            assert said
            assert attribute not in said


def test_the_quick_encoder_sees_what_the_embedded_one_sees():
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(quick_clip().encode_image(pictures), load_clip().encode_image(pictures), atol=1e-5)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name, kind, changes",
    [
        ("edits", edits, {"readings": (1, 2), "strengths": (0.5, 1.0)}),
        ("kinds", adaptations, {"readings": (1, 2)}),
    ],
)
def test_a_trial_is_one_line_of_every_arm(name, kind, changes):
    pytest.importorskip("open_clip")
    threads = torch.get_num_threads()
    kind.start_worker()
    torch.set_num_threads(threads)
    stage = replace(bench.STAGES[name], **changes)
    small = {"views": 3} if name == "edits" else {"batch": 3, "pool": 3, "choose_from": 1}
    stage = replace(stage, config=replace(stage.config, **small))
    work = edits.run_edit if name == "edits" else adaptations.run_adaptation
    line = work((1, 3, stage))
    assert set(line["found"]) == set(bench.ARMS)
    for found in line["found"].values():
        assert set(found) == {f"{factor:g}" for factor in stage.strengths}
        assert all(set(read) == {"1", "2"} for read in found.values())
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


class Breaking:
    """A run whose third step makes no picture."""

    index = 0

    def step(self):
        if self.index == 2:
            raise ValueError("pictures must lie in [0, 1]")
        self.index += 1


def test_a_run_that_breaks_has_lost_everything_from_there_on():
    run = Breaking()
    assert edits.readings(run, (1, 2), lambda: {"right": run.index}) == {"1": {"right": 1}, "2": {"right": 2}}
    found = edits.readings(Breaking(), (2, 3, 4), lambda: {"right": 1.0}, adaptations.LOST)
    assert found == {"2": {"right": 1.0}, "3": adaptations.LOST, "4": adaptations.LOST}
    with pytest.raises(ValueError, match="must lie in"):
        edits.readings(Breaking(), (3,), dict)


def test_of_renders_each_loss_is_least_for_what_was_asked():
    row = loss_contrast.of_edit(0, quick_clip())
    assert all(min(found, key=found.get) == loss_contrast.SHOWN[0] for found in row.values())
    head, _, first, *_ = loss_contrast.as_markdown([row]).splitlines()
    assert head.startswith("| loss | what was asked | another value |")
    assert first.endswith("| 1 of 1 |")


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
