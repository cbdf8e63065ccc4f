"""Loops that a GPU leaves early: when the news of their end comes changes nothing of the results, to the bit.

What a GPU does, this file plays on the CPU: news that take any number of looks to arrive.
"""

import math

import pytest
import torch

import geokernels as gk
from geokernels.kernels import transport_clouds_derivatives
from geokernels.reference import early_stop
from geokernels.reference import transport as definition
from geokernels.testing import cloud, weights

DELAYS = (0, 1, 7, math.inf)  # looks, before the news is there


@pytest.fixture
def late(monkeypatch):
    """Let values be out of reach but for news that come late."""

    def delay(looks: float) -> list:
        asked = []

        class News:
            def __init__(self, going):
                # a copy: the device goes on writing
                self.any, self.left = bool(going.clone().any()), looks
                asked.append(self)

            def read(self):
                self.left -= 1
                return None if self.left >= 0 else self.any

        monkeypatch.setattr(early_stop, "values_can_be_read", lambda *parts: False)
        monkeypatch.setattr(early_stop, "news_can_come", lambda going: True)
        monkeypatch.setattr(early_stop, "News", News)
        return asked

    return delay


def counted(monkeypatch, module, name: str) -> list:
    """Calls of a function from here on."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: calls.append(1) or function(*args))
    return calls


def problems():
    """Problems that stop after different numbers of steps; the last has no solution and stops at once."""
    x, y = cloud(3, 9, 2, seed=0), 0.5 + cloud(3, 8, 2, seed=1)
    a, b = weights(3, 9, seed=2), weights(3, 8, seed=3)
    x, y = x * torch.tensor([1.0, 0.2, 1.0])[:, None, None], y * torch.tensor([1.0, 0.2, 1.0])[:, None, None]
    return x, y, a * torch.tensor([1.0, 1.0, 0.0])[:, None], b


def solved(reach: float):
    x, y, a, b = problems()
    problem = gk.reference.Problem(1.0, reach, a, b, max_iter=60, tol=1e-6)
    return gk.reference.solve(torch.cdist(x, y).square(), problem)


@pytest.mark.parametrize("reach", [math.inf, 0.7], ids=["balanced", "unbalanced"])
def test_definition_does_not_depend_on_when_news_come(monkeypatch, late, reach):
    exact = solved(reach)
    most = exact.iterations.max().item()
    assert exact.iterations.unique().numel() > 1
    for looks in DELAYS:
        with monkeypatch.context() as patch:
            late(looks)
            steps = counted(patch, definition, "_marginal_error")
            found = solved(reach)
        for name, part, same in zip(exact._fields, found, exact):
            assert torch.equal(part.nan_to_num(7.0), same.nan_to_num(7.0)), (name, looks)
        # one question may have come too early, and the next takes its time
        assert most <= len(steps) <= min(60, most + 2 * (looks + early_stop.EVERY))
        assert looks != math.inf or len(steps) == 60


def adjoint():
    x, y, *_ = problems()
    a, b = weights(3, 9, seed=2), weights(3, 8, seed=3)
    f, g = 0.1 * cloud(3, 9, seed=4), 0.1 * cloud(3, 8, seed=5)
    grads = cloud(3, 9, seed=6), cloud(3, 8, seed=7)
    return transport_clouds_derivatives.solve_adjoint(x, y, f, g, a, b, *grads, 2.0, "", 1, 2.0)


def test_adjoint_does_not_depend_on_when_news_come(monkeypatch, late):
    monkeypatch.setattr(transport_clouds_derivatives, "MOST_STEPS", 60)
    exact = adjoint()
    for looks in DELAYS:
        late(looks)
        for part, same in zip(adjoint(), exact):
            assert torch.equal(part, same), looks


def test_nothing_is_asked_where_no_news_can_come(monkeypatch, late):
    # as while a graph is captured
    asked = late(0)
    monkeypatch.setattr(early_stop, "news_can_come", lambda going: False)
    watch, stopped = early_stop.Watch(), torch.zeros(3)
    assert not any(watch.ended(stopped) for _ in range(20))
    assert not asked


def test_a_question_is_out_at_a_time(late):
    asked = late(9)
    watch, going = early_stop.Watch(), torch.ones(3)
    assert not any(watch.ended(going) for _ in range(early_stop.EVERY + 9))
    assert len(asked) == 1
    assert not any(watch.ended(going) for _ in range(early_stop.EVERY))
    assert len(asked) == 2


def test_nobody_can_ask_but_plain_tensors_of_a_gpu():
    assert not early_stop.news_can_come(torch.zeros(1))
    assert not early_stop.news_can_come(torch.zeros(1, device="meta"))
