"""What may continue a run: nothing of another run, and nothing misshapen."""

import pytest
import torch

from geokernels.pipelines.run_state import (
    FORMAT,
    checksum,
    require_format,
    require_index,
    require_rows,
    require_same_run,
    require_state,
)

OURS = {"config": {"steps": 5, "loss": "geodesic"}, "target": "a cat", "seed": 3, "picture": "a" * 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"config": {"steps": 6, "loss": "geodesic"}}, "made with steps = 6, this run has 5"),
        ({"config": {"steps": 5}}, "made without loss, this run has 'geodesic'"),
        ({"config": {**OURS["config"], "old": 1}}, "made with old = 1, this run has none"),
        ({"target": "a dog"}, "made with target = 'a dog', this run has 'a cat'"),
        ({"mask": "here"}, "made with mask = 'here', this run has none"),
        ({"seed": 4}, "made with another seed"),
        ({"picture": "b" * 64}, "made with another picture"),
    ],
)
def test_only_the_same_run_continues(change, said):
    theirs = OURS | change
    if said is None:
        require_same_run(theirs, OURS)
        return
    with pytest.raises(ValueError, match=said):
        require_same_run(theirs, OURS)


FRESH = {
    "index": 0,
    "history": torch.empty(0, 2),
    "w": torch.zeros(2, 3),
    "previous": None,
    "kept": {},
    "rows": [1, 2],
    "network": {"weight": torch.zeros(4)},
}


def test_a_state_may_have_grown():
    grown = {"index": 7, "history": torch.ones(7, 2), "previous": torch.ones(1), "kept": {0: "x"}}
    require_state(FRESH | grown, FRESH)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": "7"}, r"state.index must be of type int, the checkpoint has str"),
        ({"index": None}, r"state.index must be of type int, the checkpoint has NoneType"),
        (
            {"history": torch.ones(7)},
            r"state.history must be \(0, 2\) torch.float32, the checkpoint has \(7,\)",
        ),
        ({"history": torch.ones(7, 2).double()}, "the checkpoint has .* torch.float64"),
        ({"w": torch.zeros(3, 2)}, r"state.w must be \(2, 3\) torch.float32, the checkpoint has \(3, 2\)"),
        ({"w": torch.zeros(2, 3, dtype=torch.int8)}, "the checkpoint has .* torch.int8"),
        ({"w": [0.0]}, "state.w must be of type Tensor, the checkpoint has list"),
        ({"kept": []}, "state.kept must be of type dict, the checkpoint has list"),
        ({"rows": [1, "2"]}, r"state.rows\[1\] must be of type int"),
        ({"rows": [1]}, "state.rows must have 2 entries, the checkpoint has 1"),
        ({"network": {}}, "state.network must be as this version writes it, the checkpoint lacks weight"),
        ({"network": FRESH["network"] | {"bias": 1}}, "the checkpoint has an unknown bias"),
        ({"network": {"weight": torch.zeros(5)}}, r"state.network.weight must be \(4,\)"),
    ],
)
def test_a_misshapen_state_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        require_state(FRESH | change, FRESH)


@pytest.mark.parametrize("index", [-1, 6])
def test_a_step_that_is_none_of_this_run(index):
    require_index(5, 5)
    with pytest.raises(ValueError, match="index must lie between 0 and 5"):
        require_index(index, 5)


def test_a_history_has_a_row_for_every_step():
    require_rows({"index": 2, "history": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="history must have 2 rows, one per step, the checkpoint has 1"):
        require_rows({"index": 2, "history": torch.zeros(1, 3)})


def test_a_state_without_a_format_is_that_of_the_first_version():
    require_format({"format": FORMAT})
    with pytest.raises(ValueError, match=r"was made by geokernels 0\.1\.0, .*; start the run again"):
        require_format({})


def test_a_checksum_is_of_shapes_dtypes_names_and_values():
    x = torch.arange(6, dtype=torch.float32)
    assert checksum(x) == checksum(x.clone()) == checksum([x])
    layer = torch.nn.Linear(2, 2)
    others = [x + 1, x[:0], x.view(2, 3), x.bfloat16(), x.int(), x.numpy()[:2], [x, x], layer]
    assert len({checksum(value) for value in [x, *others]}) == 9
    assert checksum(layer) != checksum(layer.state_dict().values())
