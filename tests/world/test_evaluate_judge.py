"""What the judge's card states is measured as it says, and its confidence fitted as it says."""

import json
from pathlib import Path

import pytest
import torch

from geokernels.world import ATTRIBUTES, render, sample_scenes
from training.cards import confusion

# they need open_clip, diffusers and Pillow
evaluation = pytest.importorskip("training.evaluate_judge")
fitting = pytest.importorskip("training.calibrate_judge")
CARDS = Path(__file__).parents[2] / "docs" / "model-cards"


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures():
    return render(sample_scenes(6, generator=chance()))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_a_blur_has_its_deviation_and_keeps_what_is_even(sigma):
    point = torch.zeros(1, 3, 41, 41)
    point[:, :, 20, 20] = 1
    spread = evaluation.blurred(point, sigma=sigma)[0, 0]
    place = torch.arange(41) - 20.0
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    # cut after three deviations and sampled at pixels
    assert (spread.sum(0) * place**2).sum().sqrt() == pytest.approx(sigma, rel=0.08)
    even = torch.full((1, 3, 20, 20), 0.7)
    torch.testing.assert_close(evaluation.blurred(even, sigma=sigma), even)


def test_noise_and_compression_grow(pictures):
    noise = evaluation.noisy(torch.full((1, 3, 64, 64), 0.5), sigma=0.1, generator=chance()) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.03)
    errors = [(evaluation.compressed(pictures, quality=q) - pictures).abs().mean() for q in (95, 50, 10)]
    assert errors[0] < errors[1] < errors[2] < 0.05
    assert errors[0] < 0.02


def reading(values, confidence, truth):
    """Every attribute alike."""
    columns = len(ATTRIBUTES)
    return evaluation.Reading(
        *(torch.tensor(x)[:, None].expand(-1, columns) for x in (values, confidence, truth))
    )


def row(table: str, first: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_shares_count_right_none_and_right_among_answers():
    some = {"fog": reading([0, 1, 1, -1], [0.9, 0.8, 0.3, 0.0], [0, 1, 0, 1])}
    every, sure = evaluation.shares(some), evaluation.shares(some, least=0.85)
    assert [every[name] is not None for name in ("right", "none", "answers")] == [True] * 3
    assert row(every["right"], "fog") == ["50.0 (15.0 to 85.0)"] * 5
    assert row(every["none"], "fog") == ["25.0 (4.6 to 69.9)"] * 5
    assert row(every["answers"], "fog") == ["66.7 (20.8 to 93.9)"] * 5
    assert row(sure["none"], "fog")[0].startswith("75.0")
    assert row(sure["answers"], "fog")[0].startswith("100.0")
    assert row(evaluation.shares(some, least=1.0)["answers"], "fog") == ["no answer"] * 5


def test_reliability_compares_what_is_stated_with_what_is_found():
    some = {
        "fog": reading([0, 0, 0, 0], [0.8, 0.86, 0.4, 0.999], [0, 1, 1, 0]),
        "rain": reading([-1, 0], [0.0, 1.0], [0, 0]),
    }
    text = evaluation.reliability(some)
    assert row(text, "70 to 90")[0].startswith("83.0: 50.0 (")
    assert row(text, "0 to 50")[0].startswith("40.0: 0.0 (")
    assert row(text, "99 to 100")[0].startswith("100.0: 100.0 (34.2 to 100.0) of 2")
    assert row(text, "90 to 97") == ["none"] * 5


def test_confusion_has_a_column_for_none():
    found = confusion(torch.tensor([[0, 1, 2, 0, -1]]), torch.tensor([[0, 1, 3, 1, 2]]))
    assert {a: m.shape for a, m in found.items()} == {a: (len(v), len(v) + 1) for a, v in ATTRIBUTES.items()}
    assert [m.nonzero().tolist() for m in found.values()] == [
        [[0, 0]],
        [[1, 1]],
        [[3, 2]],
        [[1, 0]],
        [[2, 3]],
    ]


def test_chances_grow_with_the_margin_as_the_answers_do():
    margin = 2 * torch.rand(20_000, generator=chance())
    right = torch.rand(20_000, generator=chance(1)) < margin.sqrt() / 2
    margins, chances = fitting.fit_chances(margin, right)
    assert margins[0] == 0
    assert sorted(margins) == list(margins)
    assert sorted(chances) == list(chances)
    assert chances == pytest.approx([max(margins[1], m) ** 0.5 / 2 for m in margins], abs=0.06)


def test_answers_never_wrong_are_not_certain_and_more_margin_never_harms():
    every = torch.ones(98, dtype=torch.bool)
    assert fitting.fit_chances(torch.linspace(0, 1, 98), every)[1][-1] == pytest.approx(50 / 51, abs=1e-3)
    alike = fitting.fit_chances(torch.ones(98), every)
    assert alike == ((0.0, 1.0), (0.99, 0.99))
    worse = fitting.fit_chances(torch.tensor([0.1, 0.9] * 64), torch.tensor([True, False] * 64))
    assert worse[1] == pytest.approx([0.5] * len(worse[1]))


def test_plain_and_patterned_are_fitted_apart():
    values = torch.tensor([[0, 0, 0, 0, 0]] * 40 + [[0, 0, 0, 0, 1]] * 40 + [[-1] * 5] * 9)
    truth = torch.zeros(89, 5, dtype=torch.int64)
    truth[:40:2, 4] = 1  # half of what is called plain is striped, all of what is called striped is plain
    found = fitting.calibration(values, torch.full((89, 5), 0.5), truth)
    assert set(found) == {*ATTRIBUTES, "plain"}
    assert found["plain"][1][-1] == pytest.approx(0.5)
    assert found["texture"][1][-1] < 0.03
    assert found["shape"][1][-1] > 0.97


def test_the_committed_matrices_are_those_of_the_card():
    matrices = json.loads((CARDS / "world-judge.json").read_text())
    text = (CARDS / "world-judge.md").read_text()
    clean = text.split("<!-- confusion -->")[1].split("<!-- /confusion -->")[0]
    for attribute, matrix in matrices["clean"].items():
        values = ATTRIBUTES[attribute]
        assert all(
            f"| {value} | " + " | ".join(map(str, r)) + " |" in clean for value, r in zip(values, matrix)
        )
    assert all(
        sum(map(sum, m)) == sum(map(sum, of["shape"])) for of in matrices.values() for m in of.values()
    )
