r"""How a rectified flow's states are led from level to level, there and back; each step told its own level.

With $h = s' - s$ and the midpoint $x_m = x_s + \tfrac h2 v(x_s, s)$ at $s + \tfrac h2$:

==============  =======================================================  ==========
``euler``       $x_{s'} = x_s + h\,v(x_s, s)$                            N passes
``midpoint``    $x_{s'} = x_s + h\,v(x_m, s + \tfrac h2)$                2 N passes
``rf_solver``   $x_s + h v + \tfrac{h^2}{2} \dot v$, where the           2 N passes
                derivative is $(v(x_m, s + \tfrac h2) - v) / \tfrac h2$
``fireflow``    the midpoint, reached by the velocity at the last        N + 1
                step's midpoint in place of $v(x_s, s)$
==============  =======================================================  ==========

RF-Solver (Wang et al., ICML 2025) writes the second order as a Taylor series. With the derivative that its
released code takes, the series is the midpoint rule: both names run the same steps. FireFlow (Deng et al.,
ICML 2025) reuses a velocity.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from ..._checks import require_choice

Velocity = Callable[[Tensor, float], Tensor]  # of a state at a level

SOLVERS = ("euler", "midpoint", "rf_solver", "fireflow")


def passes_of(solver: str, steps: int) -> int:
    """How often the velocity is asked for on a way of so many steps."""
    return {"euler": steps, "fireflow": steps + 1 if steps else 0}.get(solver, 2 * steps)


def travel(velocity: Velocity, x: Tensor, levels: Sequence[float], solver: str) -> Iterator[Tensor]:
    """The states at all levels but the first, at which ``x`` lies.

    Raises:
        ValueError: If there is no such solver.
    """
    require_choice("solver", solver, SOLVERS)
    at_midpoint = None
    for level, after in pairwise(levels):
        if solver == "euler":
            x = x + (after - level) * velocity(x, level)
        else:
            reuses = solver == "fireflow" and at_midpoint is not None
            first = at_midpoint if reuses else velocity(x, level)
            half = (after - level) / 2
            at_midpoint = velocity(x + half * first, level + half)
            x = x + (after - level) * at_midpoint
        yield x
