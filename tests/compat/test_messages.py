"""What is refused is named as the caller wrote it: arguments of ours, of POT's and GeomLoss's functions."""

import inspect

import numpy as np
import pytest
import torch

import geokernels as gk
from geokernels.compat import pot
from geokernels.compat.geomloss import SamplesLoss

X, Y = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COST, BASIS = torch.cdist(X, Y), torch.linalg.qr(X.mT)[0]
TENSORS = {"x": X, "y": Y, "cost": COST, "p": BASIS, "q": BASIS, "basis": BASIS, "M": COST}
TENSORS |= {"X_a": X, "X_b": Y, "a": torch.full((4,), 0.25).double(), "b": torch.full((4,), 0.25).double()}
TENSORS |= {"current": X[:, None], "source": Y[:, None], "text_source": X[:1], "text_target": Y[:1]}
VALUES = {"eps": 0.5, "t": [0.5], "reg": 0.5, "flow": gk.geodesic_flow(BASIS, BASIS)}

OURS = [
    gk.sinkhorn,
    gk.sinkhorn_from_cost,
    gk.sinkhorn_divergence,
    gk.subspace_basis,
    gk.principal_angles,
    gk.project,
    gk.geodesic_flow,
    gk.geodesic_cosine,
    gk.geodesic_cosine_along,
    gk.displacement,
    gk.assignment,
]
POTS = [pot.sinkhorn, pot.sinkhorn2, pot.solve, pot.solve_sample]
WITHOUT_EFFECT = {"verbose", "log", "warn", "n_threads", "plan_init", "method_options", "random_state"}
WITHOUT_EFFECT |= {"lazy", "batch_size", "rank", "scaling", "n_projections", "inner_iter", "inner_reg"}
NUMBERS = {"eps", "max_iter", "tol", "reach", "rank", "rtol", "reg", "stopThr", "numItermax", "unbalanced"}


def given(function):
    known = {**TENSORS, **VALUES}
    signature = inspect.signature(function).parameters
    required = {n for n, p in signature.items() if p.default is inspect.Parameter.empty}
    wanted = {n: known[n] for n in signature if n in known and (n in required or n in ("a", "b", "reg"))}
    return wanted | ({"unbalanced": 1.0} if "unbalanced" in signature else {})


def arguments(functions):
    for function in functions:
        for name in inspect.signature(function).parameters:
            solves = function in (pot.solve, pot.solve_sample) and name == "method"
            if function in OURS or not (name in WITHOUT_EFFECT or (solves and function is pot.solve)):
                yield function, name


def wrong_values(name: str, own: bool):
    if name in TENSORS and own:
        yield "nonsense"
        yield TENSORS[name].long()
    elif name in NUMBERS:
        yield from ("0.1", [1.0, 2.0], -1.0)
        if name in ("max_iter", "numItermax", "rank"):
            yield 1.5
    elif name != "potentials_init":
        yield 3.5


@pytest.mark.parametrize(
    "function, name",
    [*arguments(OURS), *arguments(POTS)],
    ids=lambda x: x if isinstance(x, str) else f"{x.__module__.split('.')[-1]}.{x.__name__}",
)
def test_a_wrong_argument_is_named(function, name):
    for value in wrong_values(name, function in OURS):
        with pytest.raises((ValueError, TypeError, gk.BackendError, NotImplementedError)) as refused:
            function(**{**given(function), name: value})
        said = str(refused.value)
        shown = "backend" if name == "backend" else name
        assert shown in said.replace("[", " ").split()[0:6] or said.startswith(shown), (value, said)
        assert "not supported between" not in said


@pytest.mark.parametrize("function", [gk.sinkhorn, gk.sinkhorn_divergence, gk.displacement])
def test_the_meta_device_is_refused(function):
    weightless = {} if function is gk.displacement else {"a": None, "b": None}
    with pytest.raises(TypeError, match=r"x must hold values, got a tensor on the meta device"):
        function(**{**given(function), "x": X.to("meta"), "y": Y.to("meta"), **weightless})


@pytest.mark.parametrize("number", [1e3, np.float32(1e3), np.int64(1000), torch.tensor(1000)])
def test_whole_numbers_are_taken_whatever_their_type(number):
    expected = gk.sinkhorn(X, Y, eps=0.5, max_iter=1000).value
    assert torch.equal(gk.sinkhorn(X, Y, eps=0.5, max_iter=number).value, expected)
    assert gk.subspace_basis(
        X, type(number)(2) if not isinstance(number, torch.Tensor) else 2.0
    ).basis.shape == (3, 2)


@pytest.mark.parametrize(
    "setting",
    [{"blur": "a"}, {"scaling": "a"}, {"tol": "a"}, {"tol": -1}, {"max_iter": 1.5}, {"max_iter": 0}],
)
def test_geomlosses_settings_are_refused_when_they_are_made(setting):
    (name,) = setting
    with pytest.raises((ValueError, TypeError), match=rf"^{name} must "):
        SamplesLoss(**setting)


def test_what_pot_has_besides_is_to_be_imported_from_there():
    with pytest.raises(
        AttributeError, match=r"offers sinkhorn, .*, and not emd2_lazy: import that from POT beside it"
    ):
        pot.emd2_lazy  # noqa: B018
    assert not hasattr(pot, "__wrapped__")
