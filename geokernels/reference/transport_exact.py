r"""Exact optimal transport between any two masses, by the transportation simplex.

Masses are whole numbers here, of any size: what is given, made to have one total, and behind that trifles by
which every row weighs :math:`M + 1` more, every column but the last one 1, and the last one the rest. No sum
of some rows is then a sum of some columns, unless it is all of them: a pivot always moves something, so that
none comes back (A. Charnes, 1952). Costs are pairs, the first of them 1 where the cost is infinite.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from .._typing import Cost, Potential, Weights

SLACK = 2.0**-44  # of the three numbers that a reduced cost is made of
FORBIDDEN_SHARE = 1e-6  # of all mass, which rounded masses may leave on forbidden pairs
SOLVED, FORBIDDEN, UNRESOLVED = range(3)

Pair = tuple[int, int]


class Basis(NamedTuple):
    """What solves a batch of problems; ``ending`` says why one is not solved, and is NaN throughout.

    Attributes:
        value: ``(...)``.
        f: Potential of the rows, ``(..., N)``.
        g: Potential of the columns, ``(..., M)``.
        rows: Of the pairs of the basis, ``(..., N + M - 1)``, int64.
        columns: Likewise.
        mass: Likewise, as a floating-point number.
        ending: ``SOLVED``, ``FORBIDDEN`` or ``UNRESOLVED``, ``(...)``, int64.
    """

    value: Tensor
    f: Potential
    g: Potential
    rows: Tensor
    columns: Tensor
    mass: Tensor
    ending: Tensor


def exact_transport(cost: Cost, a: Weights | None, b: Weights | None) -> Basis:
    """Defines :func:`geokernels.exact_transport`; gradients reach all three, by the potentials."""
    *batch, N, M = cost.shape
    problems = cost.detach().double().cpu().reshape(-1, N, M)
    given = [
        torch.full((len(problems), size), 1 / size, dtype=torch.float64)
        if w is None
        else w.detach().double().cpu().reshape(-1, size)
        for w, size in ((a, N), (b, M))
    ]
    slack = max(torch.finfo(cost.dtype).eps ** 0.5, 1e-6)
    with torch.device("cpu"):  # the search looks at every step, for which a GPU would be waited for
        solved = [_solve(*problem, slack) for problem in zip(problems, *given)]
    sizes = N, M, N + M - 1, N + M - 1, N + M - 1
    columns = zip(*solved) if solved else ([],) * 6
    parts = [
        torch.stack(part).reshape(*batch, size) if len(part) else cost.new_empty(*batch, size).double()
        for part, size in zip(list(columns)[:5], sizes)
    ]
    f, g, rows, cols, mass = (part.to(cost.device) for part in parts)
    rows, cols = rows.long(), cols.long()
    ending = torch.tensor([one[5] for one in solved], dtype=torch.int64, device=cost.device).reshape(batch)
    costs = cost.flatten(-2).gather(-1, rows * M + cols)
    value = (mass * torch.where(mass > 0, costs, 0)).sum(-1)
    value = torch.where(ending == SOLVED, value, math.nan)
    for w, potential in ((a, f), (b, g)):
        if w is not None:  # nothing is added but the gradient
            value = value + (potential * (w - w.detach())).sum(-1)
    return Basis(*(part.to(cost.dtype) for part in (value, f, g)), rows, cols, mass.to(cost.dtype), ending)


def _solve(cost: Cost, a: Weights, b: Weights, slack: float) -> tuple:
    """Potentials, pairs and their masses of one problem, all float64, and how it ended."""
    N, M = cost.shape
    totals = float(a.sum()), float(b.sum())
    balanced = min(totals) > 0 and abs(totals[0] - totals[1]) <= slack * totals[0] < math.inf
    if not (balanced and bool((a >= 0).all() and (b >= 0).all() and (cost > -math.inf).all())):
        return _nothing(N, M, UNRESOLVED)
    supply, demand, unit = _whole(a.tolist(), b.tolist())
    flow = _north_west(supply, demand)
    barred = cost.isinf()
    costs = torch.stack([barred.double(), cost.masked_fill(barred, 0)])
    while True:
        f, g = _prices(costs, flow)
        reduced = costs - f[:, :, None] - g[:, None, :]
        entering = _most_negative(costs, f, g, reduced, barred)
        if entering is None:
            break
        _pivot(flow, entering, N)
    trifle = _trifle(N, M)
    masses = {pair: (mass + trifle // 2) // trifle * unit for pair, mass in flow.items()}
    left = sum(mass for pair, mass in masses.items() if bool(barred[pair]))
    if left > FORBIDDEN_SHARE * totals[0]:
        return _nothing(N, M, FORBIDDEN)
    f, g = _joined(f, g, reduced, barred)
    if not bool(f.isfinite().all() and g.isfinite().all()):
        return _nothing(N, M, UNRESOLVED)
    shift = ((b * g).sum() - (a * f).sum()) / sum(totals)
    rows, columns = (torch.tensor(part, dtype=torch.float64) for part in zip(*masses))
    moved = [0.0 if bool(barred[pair]) else float(mass) for pair, mass in masses.items()]
    return f + shift, g - shift, rows, columns, torch.tensor(moved, dtype=torch.float64), SOLVED


def _nothing(N: int, M: int, ending: int) -> tuple:
    nan = [torch.full((size,), math.nan, dtype=torch.float64) for size in (N, M)]
    return *nan, *(torch.zeros(N + M - 1, dtype=torch.float64) for _ in range(3)), ending


def _trifle(N: int, M: int) -> int:
    """What masses are multiplied by, to have room for the trifles."""
    return 2 * N * (M + 1) + 2


def _whole(a: list[float], b: list[float]) -> tuple[list[int], list[int], Fraction]:
    """Both masses as whole numbers of one total, with their trifles, and the mass of one before these."""
    N, M = len(a), len(b)
    exact = [[Fraction(x) for x in w] for w in (a, b)]
    totals = [sum(w) for w in exact]
    common = math.lcm(*(x.denominator for w in exact for x in w))
    scale = [common**2 * total for total in reversed(totals)]
    supply, demand = ([int(x * s) for x in w] for w, s in zip(exact, scale))
    trifle = _trifle(N, M)
    rest = N * (M + 1) - (M - 1)
    supply = [x * trifle + M + 1 for x in supply]
    demand = [x * trifle + (1 if j < M - 1 else rest) for j, x in enumerate(demand)]
    return supply, demand, 1 / scale[0]


def _north_west(supply: list[int], demand: list[int]) -> dict[Pair, int]:
    """A first tree: rows and columns in order, each as much as is left of both."""
    flow, i, j, left, room = {}, 0, 0, supply[0], demand[0]
    while True:
        flow[i, j] = mass = min(left, room)
        left, room = left - mass, room - mass
        if not left and not room:
            return flow
        if not left:
            i, left = i + 1, supply[i + 1]
        else:
            j, room = j + 1, demand[j + 1]


def _neighbours(flow: dict[Pair, int], N: int) -> dict[int, list[int]]:
    """The tree: columns are the nodes from N on."""
    tree: dict[int, list[int]] = {}
    for i, j in flow:
        tree.setdefault(i, []).append(N + j)
        tree.setdefault(N + j, []).append(i)
    return tree


def _prices(costs: Tensor, flow: dict[Pair, int]) -> tuple[Tensor, Tensor]:
    """Potentials ``(2, N)`` and ``(2, M)`` by which the tree's reduced costs are zero."""
    _, N, M = costs.shape
    tree, known = _neighbours(flow, N), {0: (0.0, 0.0)}
    of = {pair: costs[:, pair[0], pair[1]].tolist() for pair in flow}
    waiting = [0]
    for node in waiting:
        for other in tree[node]:
            if other not in known:
                pair = (node, other - N) if node < N else (other, node - N)
                known[other] = tuple(c - p for c, p in zip(of[pair], known[node]))
                waiting.append(other)
    prices = torch.tensor([known[node] for node in range(N + M)], dtype=torch.float64).T
    return prices[:, :N], prices[:, N:]


def _most_negative(costs: Tensor, f: Tensor, g: Tensor, reduced: Tensor, barred: Tensor) -> Pair | None:
    """The pair that enters: first those that leave less mass on forbidden pairs."""
    M = costs.shape[-1]
    first, second = reduced
    if bool((first < -0.5).any()):
        return divmod(int(first.argmin()), M)
    size = costs[1].abs() + f[1][:, None].abs() + g[1].abs()
    negative = (second < -SLACK * size) & (first < 0.5) & ~barred
    if not bool(negative.any()):
        return None
    return divmod(int(second.masked_fill(~negative, 0).argmin()), M)


def _pivot(flow: dict[Pair, int], entering: Pair, N: int) -> None:
    """Moves mass round the cycle that a pair closes with the tree; the first pair that is empty leaves."""
    tree, start, end = _neighbours(flow, N), entering[0], N + entering[1]
    before, waiting = {start: start}, [start]
    for node in waiting:
        for other in tree[node]:
            if other not in before:
                before[other] = node
                waiting.append(other)
    giving, taking, node = [], [], end
    while node != start:
        up = before[node]
        # every other pair of the cycle, beginning beside the one that enters, gives its mass to it
        (giving if node >= N else taking).append((up, node - N) if node >= N else (node, up - N))
        node = up
    leaving = min(giving, key=flow.__getitem__)
    mass = flow[leaving]
    for pair in giving:
        flow[pair] -= mass
    for pair in taking:
        flow[pair] += mass
    del flow[leaving]
    flow[entering] = mass


def _joined(f: Tensor, g: Tensor, reduced: Tensor, barred: Tensor) -> tuple[Potential, Potential]:
    """Potentials for the costs as they are: as much of the first as what it keeps from entering asks for."""
    first, second = reduced
    kept = (first > 0.5) & ~barred
    share = torch.where(kept, -second / torch.where(kept, first, 1), 0).max().clamp(min=0)
    return f[1] + share * f[0], g[1] + share * g[0]
