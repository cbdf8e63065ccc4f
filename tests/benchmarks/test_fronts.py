"""The benchmark of adaptations counts what it says, and its fronts are fronts."""

import pytest

from benchmarks import adaptation_plasticity as bench
from benchmarks.fronts import draw_fronts, front, front_page, hypervolume
from geokernels import world
from geokernels.report.pictures import read_picture


def names(**changes):
    plain = {"shape": "star", "colour": "red", "background": "blue", "size": "small", "texture": "plain"}
    return {**plain, **changes}


def test_only_samples_that_could_change_are_asked():
    before = [names(), names(background="green"), names(colour="green"), names(shape="moon")]
    after = [names(background="green"), names(), names(), names(shape="ring", background="white")]
    # the second shows it already, the third has an object of that colour
    assert bench.score(before, after, "background", "green") == {"samples": 2, "reached": 0.5, "kept": 7 / 8}


def test_adaptations_ask_for_every_attribute_in_turn():
    found = [bench.asked(i, seed=1000) for i in range(60)]
    assert [f[0] for f in found[:5]] == list(bench.ORDER)
    assert {f[1] for f in found if f[0] == "colour"} == set(world.ATTRIBUTES["colour"])
    assert all(f[3] == world.describe({f[0]: f[1]}) for f in found)


def test_a_front_holds_what_nothing_beats():
    points = {"a": (0.2, 0.9), "b": (0.5, 0.5), "c": (0.4, 0.5), "d": (0.5, 0.4), "e": (0.9, 0.1)}
    assert front(points) == ["a", "b", "e"]


def test_the_hypervolume_is_the_area_below_the_front():
    assert hypervolume([(0.5, 1.0), (1.0, 0.5), (0.4, 0.4)]) == pytest.approx(0.75)
    assert hypervolume([(0.3, 0.2)]) == pytest.approx(0.06)
    assert hypervolume([]) == 0


def test_rows_become_a_table_a_picture_and_a_page(tmp_path):
    def row(shift):
        found = {loss: {"1": {"reached": 0.5 + shift, "kept": 0.9}} for loss in (bench.START, *bench.LOSSES)}
        found["geodesic"]["2"] = {"reached": 0.8, "kept": 0.7 - shift}
        return {"found": found}

    losses = bench.summarise([row(0.0), row(0.2)])
    point = losses["geodesic"]["points"]["1"]["reached"]
    assert point["share"] == pytest.approx(0.6)
    assert point["low"] < 0.6 < point["high"]
    assert losses["geodesic"]["front"] == ["1", "2"]
    summary = {
        "adaptations": 2,
        "seed": 1,
        "config": {"steps": 3},
        "losses": losses,
        "machine": {"processor": "a processor"},
    }
    assert "| geodesic | 2 | 80.0% [80.0, 80.0] |" in bench.as_markdown(summary)
    draw_fronts(tmp_path / "fronts.png", losses, "reached", "kept")
    assert read_picture(tmp_path / "fronts.png").rgb.shape[1] > 300
    page = front_page("Adaptations", summary, tmp_path / "fronts.png")
    assert page.count("<tr>") == 1 + 5 + 2  # head and points, and the setting under its own head
