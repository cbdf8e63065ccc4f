"""The operators of transport between large clouds: shapes, derivatives and vmap of every implementation."""

from functools import partial

import torch

from . import derivatives
from ._ops import full_name
from .batching import lead_with_mapped_dimension
from .transport_clouds_derivatives import product_backward, save_product, save_solution, solution_backward
from .transport_clouds_tangents import product_tangents, solution_tangents

NO_SECOND = "sinkhorn has no second derivative for the costs 'euclidean' and 'lp' of large clouds"
NO_SECOND_OF_POTENTIALS = "the potentials of sinkhorn have first derivatives only between large clouds"


def register(passes: str) -> None:
    """Give the operators of an implementation, and the adjoint made of them, shapes, derivatives and vmap."""
    names = [
        passes + name
        for name in ("sinkhorn_clouds", "multiply_clouds", "differentiate_clouds", "solve_adjoint_clouds")
    ]
    of_solution, of_product, of_slope, of_adjoint = map(full_name, names)

    @torch.library.register_fake(of_solution)
    def _(x, y, a, b, n, m, start, *settings):
        one = x.new_empty(x.shape[:-2])
        f, g = x.new_empty(x.shape[:-1]), y.new_empty(y.shape[:-1])
        return one, f, g, torch.empty_like(one), one.new_empty(one.shape, dtype=torch.int64)

    @torch.library.register_fake(of_product)
    def _(x, y, f, g, left, right, v, *of_cost):
        return x.new_empty((*x.shape[:-1], v.shape[-1]))

    @torch.library.register_fake(of_slope)
    def _(x, y, f, g, left, right, *of_cost):
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @torch.library.register_fake(of_adjoint)
    def _(x, y, f, g, a, b, grad_f, grad_g, *of_cost):
        return torch.empty_like(f), torch.empty_like(g), torch.empty_like(f), torch.empty_like(g)

    functions = (
        ("sinkhorn_clouds", solution_backward, save_solution, solution_tangents),
        ("multiply_clouds", product_backward, save_product, product_tangents),
    )
    for name, backward, save, tangents in functions:
        derivatives.differentiable(passes + name, partial(backward, passes), save, partial(tangents, passes))
    derivatives.without_derivative(passes + "differentiate_clouds", NO_SECOND)
    derivatives.without_derivative(passes + "solve_adjoint_clouds", NO_SECOND_OF_POTENTIALS)
    for name in names:
        lead_with_mapped_dimension(name)
