r"""Paths between the rows of prompt embeddings: which row goes where, and along which curve.

A prompt is a cloud of rows of equal mass. Moved along a coupling $\pi$ that minimises
$\sum_i |x_i - y_{\pi(i)}|^2$, the cloud $(1 - t)\,x_i + t\,y_{\pi(i)}$ is the geodesic of the Wasserstein
distance between the two. Everything here is a function of tensors; no model takes part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._checks import require_choice, require_finite, require_rank
from ...models.text_to_image import CONTENT, PADDING, Embedding
from ...ops import assignment, exact_transport, sinkhorn_from_cost
from ...reference import pairwise_cost

COUPLINGS = ("ot", "entropic", "row", "slerp", "random")
ROWS = ("all", "pinned", "blockwise")
MOST_ROWS = 16384  # that a model reads on the way between prompts of different lengths


@dataclass(frozen=True)
class Segment:
    """The way of one cloud of rows to the next key.

    Attributes:
        start: ``(L, D)``.
        end: Where each of them goes, ``(L, D)``.
        spherical: Whether rows turn at even angular speed instead of moving along straight lines.
    """

    start: Tensor
    end: Tensor
    spherical: bool = False

    def at(self, t: Tensor) -> Tensor:
        """Rows at times ``t`` (T,) of the segment, ``(T, L, D)``."""
        if self.spherical:
            return slerp(self.start, self.end, t)
        return torch.lerp(self.start, self.end, t.to(self.start).view(-1, 1, 1))


@dataclass(frozen=True)
class PromptPath:
    """A path through two or more key prompts, each of its segments taking the same time."""

    segments: tuple[Segment, ...]
    pooled: Tensor | None  # of every key, (K, P)

    def locate(self, t: float) -> tuple[int, float]:
        """The segment of time ``t`` in [0, 1], and the time within it."""
        along = t * len(self.segments)
        index = min(int(along), len(self.segments) - 1)
        return index, along - index

    def at(self, t: float) -> tuple[Tensor, Tensor | None]:
        """Rows ``(L, D)`` and pooled vector ``(P,)``, or None, at time ``t`` in [0, 1]."""
        index, local = self.locate(t)
        time = torch.tensor([local], dtype=torch.float64)
        pooled = self.pooled_at(index, time)
        return self.segments[index].at(time)[0], None if pooled is None else pooled[0]

    def pooled_at(self, index: int, t: Tensor) -> Tensor | None:
        """Pooled vectors at times ``t`` (T,) of a segment, ``(T, P)``: on the arc between keys."""
        return None if self.pooled is None else slerp(self.pooled[index], self.pooled[index + 1], t)


def prompt_path(
    keys: Sequence[Embedding],
    *,
    coupling: str = "ot",
    rows: str = "all",
    eps: float = 0.05,
    generator: torch.Generator | None = None,
) -> PromptPath:
    """Couple each key with the next, so that every row moves without a jump from the first to the last.

    Permutations compose: the rows of a key are taken in the order in which those of the key before arrived.
    Costs and plans are made in float64 on the CPU, rows stay in their dtype and where they are.

    Args:
        keys: Two or more prompts; rows of one width.
        coupling: ``"ot"`` (exact), ``"entropic"`` (each row to the mean of where the entropic plan sends it;
            the last key is then not reached exactly), ``"row"`` (in order, straight), ``"slerp"`` (in order,
            along arcs) or ``"random"``.
        rows: Which rows may go where. ``"all"`` lets every row go anywhere, ``"pinned"`` sends start to start
            and end to end, and ``"blockwise"`` also content to content, except for the surplus of the longer
            prompt. For couplings that keep the order every mode is the same.
        eps: Regularisation of the entropic plan, as a share of the mean cost.
        generator: Source of random numbers for ``"random"``.

    Raises:
        ValueError: If settings or prompts do not fit together.
    """
    require_choice("coupling", coupling, COUPLINGS)
    require_choice("rows", rows, ROWS)
    if coupling == "random" and generator is None:
        raise ValueError("generator must be given for the random coupling, got None")
    _require_keys(keys)
    lengths = {len(key.rows) for key in keys}
    if len(lengths) > 1 and (coupling not in ("ot", "entropic") or rows != "all"):
        raise ValueError(
            f"prompts must have as many rows each for coupling {coupling!r} with rows {rows!r}, "
            f"got {' and '.join(str(len(key.rows)) for key in keys)}; 'ot' with 'all' takes any"
        )
    segments, here = [], keys[0]
    for there in keys[1:]:
        if coupling in ("row", "slerp"):
            segment, here = Segment(here.rows, there.rows, spherical=coupling == "slerp"), there
        elif coupling == "entropic":
            moved = _barycentres(here, there, rows, eps)
            segment, here = Segment(here.rows, moved), here._replace(rows=moved)
        elif len(lengths) > 1:
            source, target = kantorovich_pairs(here.rows, there.rows)
            segment, here = Segment(here.rows[source], there.rows[target]), there
        else:
            chosen = permutation(
                here, there, rows=rows, generator=generator if coupling == "random" else None
            )
            arrived = there._replace(rows=there.rows[chosen], kinds=there.kinds[chosen])
            segment, here = Segment(here.rows, arrived.rows), arrived
        segments.append(segment)
    pooled = None if keys[0].pooled is None else torch.stack([key.pooled for key in keys])
    return PromptPath(tuple(segments), pooled)


def permutation(
    x: Embedding, y: Embedding, *, rows: str = "all", generator: torch.Generator | None = None
) -> Tensor:
    """The row of ``y`` that each row of ``x`` goes to, ``(L,)`` on the CPU: the cheapest, or a random one.

    With independent random costs every permutation that ``rows`` admits is equally likely to be the cheapest.

    Raises:
        ValueError: If no permutation keeps to ``rows``.
    """
    cost = _cost(x.rows, y.rows)
    if generator is not None:
        cost = torch.rand(cost.shape, generator=generator, dtype=torch.float64)
    restricted = _restrict(cost, x.kinds, y.kinds, rows)
    try:
        return assignment(restricted)
    except ValueError as error:
        raise ValueError(
            f"rows {rows!r} must leave every row somewhere to go, but the prompts differ in their start or "
            "end rows; take 'all'"
        ) from error


def kantorovich_pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest plan between clouds of N and M rows, both of mass one, as pairs of equal mass.

    Masses of the cheapest plan are multiples of one over ``lcm(N, M)``. A pair comes as often as its mass
    says, beside the largest mass of which all are multiples.

    Returns:
        Rows of ``x`` and the rows of ``y`` they go to, int64 on the CPU.

    Raises:
        ValueError: If these are more than ``MOST_ROWS``, which a model would have to read.
    """
    n, m = len(x), len(y)
    found = exact_transport(_cost(x, y))
    count = (found.mass * math.lcm(n, m)).round().long()
    count = count // math.gcd(*count.tolist())
    if (rows := int(count.sum())) > MOST_ROWS:
        raise ValueError(
            f"prompts of {n} and {m} rows must make at most {MOST_ROWS} rows of equal mass on their way, "
            f"got {rows}; take coupling 'entropic', or another prompt"
        )
    source, target = (part.repeat_interleave(count) for part in (found.rows, found.columns))
    order = (source * m + target).argsort()
    return source[order], target[order]


def slerp(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Vectors between ``x`` and ``y`` (..., D) at times ``t`` (T,), ``(T, ..., D)``, in the dtype of ``x``.

    Directions turn along the great circle at even speed, lengths change linearly. Where there is no such
    circle, a zero vector or one opposite to the other, the vector moves along the straight line.
    """
    u, v = x.double(), y.double()
    t = t.to(u).view(-1, *(1,) * x.dim())
    lengths = u.norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True)
    defined = (lengths[0] > 0) & (lengths[1] > 0)
    a, b = (w / torch.where(defined, length, 1.0) for w, length in zip((u, v), lengths))
    # from the chords' lengths: arccos loses half its digits where the vectors are close
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    defined = defined & (angle > 1e-9) & (angle < math.pi - 1e-9)
    sine = torch.where(defined, angle, 1.0).sin()
    turned = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine
    arc = torch.lerp(lengths[0], lengths[1], t) * turned
    return torch.where(defined, arc, torch.lerp(u, v, t)).to(x.dtype)


def _require_keys(keys: Sequence[Embedding]) -> None:
    if len(keys) < 2:
        raise ValueError(f"prompts must be at least two, got {len(keys)}")
    first = keys[0]
    for i, key in enumerate(keys):
        require_rank(f"rows of prompt {i}", key.rows, 2, "(L, D)")
        require_finite(f"rows of prompt {i}", key.rows)
        if key.rows.shape[-1] != first.rows.shape[-1]:
            raise ValueError(
                f"prompts must be read by one text encoder, got rows of width {first.rows.shape[-1]} "
                f"and {key.rows.shape[-1]}"
            )
        if (key.pooled is None) != (first.pooled is None):
            raise ValueError("every prompt must have a pooled vector, or none, got some of each")


def _cost(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances in float64, on the CPU: plans are small, and not every accelerator has float64."""
    return pairwise_cost(x.cpu().double(), y.cpu().double())


def _restrict(cost: Tensor, x: Tensor, y: Tensor, rows: str) -> Tensor:
    """The cost with what ``rows`` does not want made infinite or dearer than everything else together."""
    if rows == "all":
        return cost
    x, y = x.cpu(), y.cpu()
    pinned = [torch.where(kinds == PADDING, CONTENT, kinds) for kinds in (x, y)]
    if rows == "blockwise":
        # the surplus must cross: as few rows as can be, and among those the cheapest
        crossing = (x[:, None] != y) & (pinned[0][:, None] == pinned[1])
        cost = cost + crossing * (1 + 2 * len(cost) * cost.abs().max())
    return cost.masked_fill(pinned[0][:, None] != pinned[1], math.inf)


def _barycentres(x: Embedding, y: Embedding, rows: str, eps: float) -> Tensor:
    cost = _cost(x.rows, y.rows)
    scale = eps * float(cost.mean())
    own = [key.kinds.cpu() for key in (x, y)]
    if rows == "blockwise" and own[0].bincount(minlength=4).ne(own[1].bincount(minlength=4)).any():
        raise ValueError(
            "rows must be 'all' or 'pinned' for coupling 'entropic' between prompts of different lengths, "
            "got 'blockwise'"
        )
    if rows != "all":
        kinds = [k if rows == "blockwise" else torch.where(k == PADDING, CONTENT, k) for k in own]
        cost = cost.masked_fill(kinds[0][:, None] != kinds[1], math.inf)
    plan = sinkhorn_from_cost(cost, eps=max(scale, torch.finfo(cost.dtype).tiny))
    return plan.barycentric(y.rows.cpu().double()).to(y.rows)
