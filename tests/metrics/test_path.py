"""Scores of paths of pictures, and the times at which they lie evenly."""

import pytest
import torch

from geokernels.metrics import gini, respace, score_path


def test_even_steps_score_best():
    score = score_path(torch.full((5,), 0.2), missed=0.0, chord=0.9)
    assert (score.smoothness, score.worst_step, score.fidelity) == (1.0, 1.0, 1.0)
    assert score.length == pytest.approx(1.0)


def test_one_jump_scores_worst():
    score = score_path(torch.tensor([0.0, 0.0, 3.0, 0.0]), missed=1.5, chord=3.0)
    assert score == (3.0, 0.25, 4.0, 0.5)


def test_gini_is_that_of_the_lorenz_curve():
    values = torch.rand(50, dtype=torch.float64)
    lorenz = torch.cat([torch.zeros(1), values.sort().values.cumsum(0) / values.sum()])
    area = torch.trapezoid(lorenz, dx=1 / 50)
    assert gini(values) == pytest.approx(float(1 - 2 * area))
    assert gini(torch.zeros(3)) == 0


def test_pictures_that_never_change():
    score = score_path(torch.zeros(3), missed=0.0, chord=0.0)
    assert (score.smoothness, score.worst_step, score.fidelity) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("steps", [[], [1.0, -1.0], [float("nan")]])
def test_bad_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps must be finite numbers"):
        score_path(torch.tensor(steps), missed=0.0, chord=1.0)


def walk(place, n: int, rounds: int) -> tuple[float, list[float]]:
    """Respace until even; the largest step over the mean, and the times."""
    times, known = torch.linspace(0, 1, n, dtype=torch.float64), {}
    for _ in range(rounds):
        known |= {t: place(t) for t in times.tolist()}
        here = torch.stack([known[t] for t in times.tolist()])
        steps = here.diff(dim=0).norm(dim=1)
        if steps.max() <= 1.1 * steps.mean():
            break
        every = torch.tensor(sorted(known), dtype=torch.float64)
        gaps = torch.stack([known[t] for t in every.tolist()]).diff(dim=0).norm(dim=1)
        times = respace(times, steps, every, gaps)
    return float(steps.max() / steps.mean()), times.tolist()


def a_jump(t: float) -> torch.Tensor:
    return torch.tensor([torch.tanh(torch.tensor(300 * (t - 0.4))), t], dtype=torch.float64)


def a_bend(t: float) -> torch.Tensor:
    return torch.tensor([t**3, torch.sin(torch.tensor(8.0 * t))], dtype=torch.float64)


@pytest.mark.parametrize("place, n", [(a_jump, 9), (a_bend, 17)])
def test_respacing_makes_steps_even(place, n):
    ratio, times = walk(place, n, rounds=10)
    assert ratio <= 1.1
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0.0, 1.0)


def test_respacing_leaves_what_never_moves():
    times = torch.linspace(0, 1, 4, dtype=torch.float64)
    assert torch.equal(respace(times, torch.zeros(3), times, torch.zeros(3)), times)
