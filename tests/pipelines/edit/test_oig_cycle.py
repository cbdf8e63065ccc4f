"""The cycle of OIG+ beside what else an edit may be told; its definition is in test_oig_definition.py."""

import math

import pytest
import torch

from geokernels.pipelines.edit.oig import TERMS, OIGConfig, OIGEdit
from geokernels.pipelines.edit.source import draw_source

pytest.importorskip("diffusers")


@pytest.fixture
def run_of(exact_pipeline, encoder):
    def run(steps=4, **settings):
        source = draw_source(exact_pipeline, ["a"], steps=steps, generator=torch.Generator().manual_seed(1))
        return OIGEdit(exact_pipeline, encoder, source, ["b"], config=OIGConfig(**settings))

    return run


def test_the_way_back_goes_on_where_a_step_is_not_guided(run_of):
    run, ways = run_of(cycle=0.3, cycle_steps=2, every=2, until=0.8), []
    while not run.done:
        run.step()
        ways.append(run.cycle.latents)
    assert run.terms[:-2] == TERMS
    known = ~run.history[:, 0].isnan()
    assert known[:, run.terms.index("cycle")].tolist() == [True, False, True, False]
    # the source moves as long as a later step looks at it
    assert known[:, run.terms.index("source_cycle")].tolist() == [True, False, False, False]
    assert not torch.equal(ways[0], ways[1])
    assert ways[1] is ways[2] is ways[3]


@pytest.mark.parametrize("wanted, levels", [(1, [0, 4]), (3, [0, 1, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_the_cycle_is_closed_in_as_many_steps_as_there_are(run_of, wanted, levels):
    assert run_of(cycle=0.3, cycle_steps=wanted).cycle.levels == levels
    assert run_of(cycle=0.3, cycle_steps=None).cycle.levels == [0, 1, 2, 3, 4]


def test_costs_nothing_where_it_is_left_out(run_of):
    run = run_of(steps=1)
    run.step()
    assert run.cycle is None
    assert run.terms == TERMS
    assert "cycle" not in run.state_dict()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"cycle": -0.1}, "cycle must be a finite number, 0 or above"),
        ({"cycle": math.inf}, "cycle must be a finite number, 0 or above"),
        ({"cycle_steps": 0}, "cycle_steps must be a finite number above 0"),
        ({"cycle": 1, "step": 0}, "step must be above 0 where cycle is"),
    ],
    ids=str,
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        OIGConfig(**settings)
