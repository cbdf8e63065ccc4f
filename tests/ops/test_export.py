"""Programs exported with open sizes run below and beyond what the compiled kernels take, or say no."""

import pytest
import torch
from torch.export import Dim, export

import geokernels as gk
from geokernels.testing import cloud, orthonormal

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning"),
]


class Program(torch.nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, first, second):
        return self.run(first, second)


def exported(run, first, second, dim: int, *, most: int = 1000, strict: bool = False):
    shapes = ({dim: Dim("n", min=2, max=most)}, {dim: Dim("m", min=2, max=most)})
    return export(Program(run), (first, second), dynamic_shapes=shapes, strict=strict).module()


def clouds(N: int, M: int):
    return cloud(N, 2, seed=0), cloud(M, 2, seed=1)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_transport_between_clouds_of_any_size(cost, strict):
    def run(x, y):
        return gk.sinkhorn_divergence(x, y, eps=0.5, cost=cost, tol=1e-10)

    program = exported(run, *clouds(20, 30), dim=0, strict=strict)
    for sizes in ((20, 30), (256, 7), (257, 7), (3, 300), (300, 290)):
        given = clouds(*sizes)
        torch.testing.assert_close(program(*given), run(*given), atol=1e-6, rtol=1e-5)


def test_the_small_kernel_stays_where_sizes_stay_small():
    program = exported(lambda x, y: gk.sinkhorn(x, y, eps=0.5).value, *clouds(20, 30), dim=0, most=256)
    assert any("sinkhorn_points" in str(node.target) for node in program.graph.nodes)


def test_given_costs_of_any_size():
    def run(cost, a):
        return gk.sinkhorn_from_cost(cost, eps=0.5).value + a.sum()

    given = cloud(20, 30, seed=0).abs(), cloud(4, 30, seed=1)
    program = exported(run, *given, dim=0)
    for rows in (250, 300):
        given = cloud(rows, 30, seed=0).abs(), given[1]
        torch.testing.assert_close(program(*given), run(*given))


def test_the_definition_is_exported_by_name():
    def run(cost, a):
        return gk.sinkhorn_from_cost(cost, eps=0.5, max_iter=3, backend="reference").value + a.sum()

    program = exported(run, cloud(20, 30, seed=0).abs(), cloud(4, 30, seed=1), dim=0)
    given = cloud(300, 30, seed=0).abs(), cloud(5, 30, seed=1)
    torch.testing.assert_close(program(*given), run(*given))


def test_bases_of_any_number_of_columns():
    x, y = cloud(5, 270, seed=0), cloud(5, 270, seed=1)

    def run(p, q):
        return gk.geodesic_cosine(x, y, p, q)

    program = exported(run, orthonormal(270, 20, seed=2), orthonormal(270, 10, seed=3), dim=1)
    for K, L in ((20, 10), (128, 3), (129, 3), (3, 260)):
        given = orthonormal(270, K, seed=2), orthonormal(270, L, seed=3)
        torch.testing.assert_close(program(*given), run(*given), atol=1e-9, rtol=1e-7)
    named = (
        "native: the compiled kernel takes bases of up to 128 columns, not a size that torch.export leaves"
    )
    with pytest.raises(gk.BackendError, match=named):
        exported(
            lambda p, q: gk.geodesic_cosine(x, y, p, q, backend="native"),
            orthonormal(270, 20, seed=2),
            orthonormal(270, 10, seed=3),
            dim=1,
        )


def test_a_basis_of_any_number_of_rows():
    def run(x):
        return gk.subspace_basis(x, 3).values

    class Rows(torch.nn.Module):
        def forward(self, x):
            return run(x)

    program = export(Rows(), (cloud(20, 30, seed=0),), dynamic_shapes=({0: Dim.DYNAMIC},)).module()
    for N in (20, 128, 129, 300):
        torch.testing.assert_close(program(x := cloud(N, 30, seed=1)), run(x))


@pytest.mark.parametrize("family", ["costs", "cosine"])
def test_what_is_compiled_with_open_sizes_is_not_exported(family):
    """Only an export must be right for all sizes at once: a graph that is compiled is compiled anew."""

    def of_costs(x):
        return gk.sinkhorn_from_cost(x.square(), eps=0.5, max_iter=20, tol=0.0).value

    def of_bases(x):
        rows = x[:3]
        return gk.geodesic_cosine(rows, rows + 1, x.mT, x.mT + 0.1)

    run, operator = {"costs": (of_costs, "sinkhorn"), "cosine": (of_bases, "geodesic_cosine")}[family]
    graphs = []

    def keep(graph, _):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph

    program = torch.compile(run, backend=keep, dynamic=True)
    x = cloud(20, 400, seed=0)
    torch.testing.assert_close(program(x[:, :200]), run(x[:, :200]))
    assert any(f"geokernels.{operator}" in target for graph in graphs for target in graph)
    if family == "costs":  # beyond what the kernel takes, where an export would be refused
        torch.testing.assert_close(program(x), run(x))
