"""Every operator refuses a sparse tensor, whichever argument it is, in one sentence."""

import inspect

import pytest
import torch

import geokernels as gk

SQUARE = torch.eye(3)
CALLS = {
    gk.subspace_basis: {"x": SQUARE},
    gk.project: {"x": SQUARE, "basis": SQUARE},
    gk.principal_angles: {"p": SQUARE, "q": SQUARE},
    gk.geodesic_flow: {"p": SQUARE, "q": SQUARE},
    gk.geodesic_cosine: {"x": SQUARE, "y": SQUARE, "p": SQUARE, "q": SQUARE},
    gk.sinkhorn: {"x": SQUARE, "y": SQUARE, "a": SQUARE[0], "b": SQUARE[0], "eps": 0.1},
    gk.sinkhorn_from_cost: {"cost": SQUARE, "a": SQUARE[0], "b": SQUARE[0], "eps": 0.1},
    gk.sinkhorn_divergence: {"x": SQUARE, "y": SQUARE, "a": SQUARE[0], "b": SQUARE[0], "eps": 0.1},
    gk.exact_transport: {"cost": SQUARE, "a": SQUARE[0], "b": SQUARE[0]},
    gk.assignment: {"cost": SQUARE},
    gk.displacement: {"x": SQUARE, "y": SQUARE, "t": 0.5},
    gk.match_points: {"x": SQUARE, "y": SQUARE, "at_x": SQUARE, "at_y": SQUARE, "eps": 0.1, "reach": 1.0},
}
ARGUMENTS = [
    (run, name) for run, given in CALLS.items() for name in given if isinstance(given[name], torch.Tensor)
]


@pytest.mark.parametrize(
    ("run", "name"), ARGUMENTS, ids=[f"{run.__name__}-{name}" for run, name in ARGUMENTS]
)
def test_a_sparse_argument_is_refused(run, name):
    given = {**CALLS[run], name: CALLS[run][name].to_sparse()}
    with pytest.raises(TypeError, match=f"^{name} must be a dense tensor, .* got torch.sparse_coo$"):
        run(**given)


def test_every_operator_is_tried():
    takes_tensors = {
        run
        for run in map(vars(gk.ops).get, gk.ops.__all__)
        if inspect.isfunction(run) and run is not gk.geodesic_cosine_along
    }
    assert takes_tensors == set(CALLS)
