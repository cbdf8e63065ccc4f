"""What holds under torchrun, on every rank; test_sharded.py starts it and reads what each rank wrote.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/distributed/launched.py FOLDER [death]
"""

import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import geokernels as gk
from geokernels import distributed
from geokernels.distributed import RankError, iteration
from geokernels.kernels import transport_clouds
from geokernels.testing import assert_as_accurate, cloud, weights

COSTS = ("sqeuclidean", "euclidean", "cosine", "dot", "lp")
# uneven on purpose, one rank without any rows of a cloud
ROWS = {2: ([33, 17], [43, 0]), 3: ([17, 0, 33], [10, 13, 20])}
TIGHT = {"tol": 1e-12, "max_iter": 1000}
HOW = {"whole": {}, "ring": {"memory": 0}}

RANK, SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def split(whole: torch.Tensor, side: int) -> torch.Tensor:
    """The rows of this rank."""
    return whole.split(ROWS[SIZE][side])[RANK].clone()


def parts(dtype=torch.float64) -> list[torch.Tensor]:
    """Clouds about a point that is not the origin, and weights of which the first is zero."""
    N, M = (sum(rows) for rows in ROWS[SIZE])
    made = 1 + cloud(N, 3, seed=0), 1.5 + 0.7 * cloud(M, 3, seed=1), weights(N, seed=2), weights(M, seed=3)
    return [part.to(dtype) for part in made]


def rows_of(whole: list[torch.Tensor], **options) -> list[torch.Tensor]:
    return [split(part, side).requires_grad_(**options) for part, side in zip(whole, (0, 1, 0, 1))]


def close(name: str, ours: torch.Tensor, theirs: torch.Tensor, within: float) -> None:
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    if ours.numel():
        off = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1)
        assert off <= within, (name, off.item())


def same_everywhere(*numbers: torch.Tensor) -> None:
    """Whether all ranks have these, to the bit."""
    mine = [number.detach().double().item() for number in numbers]
    told = [None] * SIZE
    dist.all_gather_object(told, mine)
    assert all(one == mine for one in told), told


def check_half_steps_are_those_of_one_process():
    whole = parts()
    for cost in COSTS:
        for reach in (None, 0.7):
            options = {"eps": 0.5, "cost": cost, "p": 1.5, "reach": reach, "max_iter": 4, "tol": 0.0}
            alone = gk.sinkhorn(*whole, **options)
            for how in HOW if cost in ("sqeuclidean", "lp") else ("ring",):
                ours = distributed.sinkhorn(*rows_of(whole), **options, **HOW[how])
                close(f"{cost}: value", ours.value, alone.value, 1e-12)
                close(f"{cost}: f", ours.f, split(alone.f, 0), 1e-11)
                close(f"{cost}: g", ours.g, split(alone.g, 1), 1e-11)
                close(f"{cost}: error", ours.error, alone.error, 1e-11)
                assert ours.iterations == 4
                same_everywhere(ours.value, ours.error, ours.iterations)


def check_converged_and_annealed_as_one_process():
    whole = parts()
    for options in ({}, {"anneal": (4.0, 0.5)}, {"reach": 0.7}, {"reach": 0.7, "anneal": (4.0, 0.5)}):
        alone = gk.sinkhorn(*whole, eps=1.0, **options, **TIGHT)
        ours = distributed.sinkhorn(*rows_of(whole), eps=1.0, **options, **TIGHT)
        assert ours.converged
        close("value", ours.value, alone.value, 1e-11)
        close("f", ours.f, split(alone.f, 0), 1e-10)
        again = distributed.sinkhorn(*rows_of(whole), eps=1.0, init=(ours.f, ours.g), **TIGHT)
        assert again.converged
        assert options or again.iterations <= 2


def check_uniform_weights_and_far_clouds():
    # costs thousands of times eps: sums about the start underflow in float32, and half-steps begin anew
    x, y, _, _ = parts()
    far = [x * 30, y * 30 + 100, None, None]
    options = {"eps": 20.0, "max_iter": 6, "tol": 0.0}
    truth = gk.sinkhorn(*far[:2], **options, backend="reference")
    narrow = [part.float() for part in far[:2]]
    eager = gk.sinkhorn(*narrow, **options, backend="reference")
    ours = distributed.sinkhorn(*rows_of(narrow), **options)
    assert_as_accurate("value", ours.value, eager.value, truth.value)
    error = (split(truth.f, 0) - ours.f).abs().max() if ours.f.numel() else 0
    assert error <= 2 * (truth.f - eager.f).abs().max()


def check_value_below_eps():
    whole = parts(torch.float32)
    for reach in (None, 1e6):
        options = {"eps": 1e6, "reach": reach}
        truth = gk.sinkhorn(*(part.double() for part in whole), **options, tol=1e-12)
        ours = distributed.sinkhorn(*rows_of(whole), **options)
        assert abs(ours.value - truth.value) < 1e-5 * truth.value


def loss_of(solved, v, u, sides):
    """A loss of all that a result has: what is on all ranks, and the sums of what they have rows of."""
    f, g, w, z = sides
    out = solved.apply(v), solved.apply_t(u), solved.barycentric(v)
    rest = sum((part * like).sum() for part, like in zip(out, (w, z, w)))
    return 0.7 * solved.value, (solved.f * f).sum() + (solved.g * g).sum() + rest


def of_loss(solve, leaves, v, u, sides):
    solved = solve(*leaves)
    both = loss_of(solved, v, u, sides)
    grads = torch.autograd.grad(both[0] + both[1], [*leaves, v, u])
    return solved, grads


def gradients(options, dtype, how, tight):
    """All gradients of one process and of this rank's rows."""
    whole = parts(dtype)
    N, M = whole[0].shape[0], whole[1].shape[0]
    v, u = (cloud(n, 4, seed=seed).to(dtype) for n, seed in ((M, 4), (N, 5)))
    sides = [cloud(*shape, seed=6 + k).to(dtype) for k, shape in enumerate(((N,), (M,), (N, 4), (M, 4)))]
    leaves = [part.clone().requires_grad_() for part in whole]
    alone = of_loss(
        lambda *given: gk.sinkhorn(*given, **options, **tight),
        leaves,
        v.clone().requires_grad_(),
        u.clone().requires_grad_(),
        sides,
    )
    mine = [split(part, side) for part, side in zip(sides, (0, 1, 0, 1))]
    ours = of_loss(
        lambda *given: distributed.sinkhorn(*given, **options, **tight, **how),
        rows_of(whole),
        split(v, 1).requires_grad_(),
        split(u, 0).requires_grad_(),
        mine,
    )
    return alone, ours


def check_gradients_are_those_of_one_process():
    # the costs whose derivative is a product, and one whose is not
    for cost, reach, how in (
        ("sqeuclidean", None, "ring"),
        ("sqeuclidean", 0.7, "whole"),
        ("lp", None, "whole"),
        ("cosine", 0.7, "ring"),
        ("euclidean", 0.7, "ring"),
    ):
        options = {"eps": 2.0, "cost": cost, "p": 1.5, "reach": reach}
        alone, ours = gradients(options, torch.float64, HOW[how], TIGHT)
        for name, mine, all_of_it, side in zip("xyabvu", ours[1], alone[1], (0, 1, 0, 1, 1, 0)):
            close(f"{cost} {reach} {how}: gradient to {name}", mine, split(all_of_it, side), 1e-8)


def check_float32_is_as_accurate_as_one_process():
    tight = {"tol": 1e-6, "max_iter": 3000}
    alone, ours = gradients({"eps": 2.0}, torch.float32, {}, tight)
    truth, _ = gradients({"eps": 2.0}, torch.float64, {}, TIGHT)
    for name, mine, narrow, wide, side in zip("xyabvu", ours[1], alone[1], truth[1], (0, 1, 0, 1, 1, 0)):
        error = (wide - narrow).abs().max()
        here = split(wide, side) - mine
        assert not here.numel() or here.abs().max() <= 4 * error + 1e-5 * wide.abs().max(), name


def check_half_precision_is_computed_in_float32():
    for dtype in (torch.float16, torch.bfloat16):
        whole = parts(dtype)
        ours = distributed.sinkhorn(*rows_of(whole, requires_grad=False), eps=0.5)
        alone = gk.sinkhorn(*whole, eps=0.5)
        assert ours.value.dtype == ours.f.dtype == torch.float32
        close("value", ours.value, alone.value, 1e-4)
        assert ours.apply(split(whole[1], 1)).dtype == dtype


def check_divergence_is_that_of_one_process():
    whole = parts()
    for reach in (None, 0.7):
        options = {"eps": 2.0, "reach": reach, **TIGHT}
        given = [whole[0], whole[1], whole[2], (2 if reach else 1) * whole[3]]
        leaves = [part.clone().requires_grad_() for part in given]
        alone = gk.sinkhorn_divergence(*leaves, **options)
        grads = torch.autograd.grad(alone, leaves)
        mine = rows_of(given)
        ours = distributed.sinkhorn_divergence(*mine, **options)
        close("divergence", ours, alone, 1e-11)
        same_everywhere(ours)
        found = torch.autograd.grad(ours, mine)
        for name, part, all_of_it, side in zip("xyab", found, grads, (0, 1, 0, 1)):
            close(f"gradient to {name}", part, split(all_of_it, side), 1e-9)


def check_the_same_bits_from_run_to_run():
    for how in HOW.values():
        runs = [gradients({"eps": 2.0}, torch.float32, how, {"tol": 1e-5})[1] for _ in range(2)]
        for one, other in zip(runs[0][1], runs[1][1]):
            assert torch.equal(one, other)
        assert torch.equal(runs[0][0].f, runs[1][0].f)
        same_everywhere(runs[0][0].value)


def check_a_group_of_some_ranks():
    groups = [dist.new_group([0]), dist.new_group([r for r in range(SIZE) if r])]
    whole = parts()
    mine = groups[min(RANK, 1)]
    if dist.get_world_size(mine) == 1:
        ours = distributed.sinkhorn(*whole, eps=2.0, group=mine, **TIGHT)
        close("value", ours.value, gk.sinkhorn(*whole, eps=2.0, **TIGHT).value, 1e-11)
    else:
        distributed.sinkhorn(whole[0], whole[1], eps=0.5, group=mine)
    with pytest.raises(ValueError, match="group must have this process among its ranks"):
        distributed.sinkhorn(*whole, eps=0.5, group=groups[1 - min(RANK, 1)])


def check_disagreement_is_a_sentence_everywhere():
    x, y, a, b = rows_of(parts(), requires_grad=False)
    last, odd = SIZE - 1, RANK == SIZE - 1

    def refused(kind, sentence, *given, **options):
        with pytest.raises(kind) as found:
            distributed.sinkhorn(*given, **{"eps": 0.5, **options})
        assert str(found.value) == sentence, str(found.value)

    apart = f"on rank 0 and {{}} on rank {last}"
    refused(
        ValueError,
        f"eps must be the same on every rank, got 0.5 {apart.format(0.6)}",
        *(x, y, a, b),
        eps=0.6 if odd else 0.5,
    )
    wide = [torch.cat([part, part], 1) if odd else part for part in (x, y)]
    refused(
        ValueError, f"the number of features must be the same on every rank, got 3 {apart.format(6)}", *wide
    )
    narrow = [part.float() if odd else part for part in (x, y, a, b)]
    refused(
        TypeError,
        f"dtype must be the same on every rank, got torch.float64 {apart.format('torch.float32')}",
        *narrow,
    )
    given = [x, y, None, None] if odd else [x, y, a, b]
    refused(
        ValueError,
        f"whether a is given must be the same on every rank, got True {apart.format(False)}",
        *given,
    )
    bad = torch.full((4, 3), torch.nan, dtype=x.dtype)
    refused(ValueError, f"rank {last}: x_rows must be finite, got NaN", bad if odd else x, y)
    low = -torch.ones_like(a) if odd else a
    refused(ValueError, f"rank {last}: a must be finite and non-negative, got -1.0", x, y, low, b)
    refused(
        ValueError,
        f"rank {last}: y_rows must have the 3 features of x_rows, got (5, 2)",
        *(x, bad[:, :2].new_ones(5, 2) if odd else y),
    )
    refused(TypeError, f"rank {last}: eps must be a number, got '1'", x, y, eps="1" if odd else 0.5)
    refused(
        ValueError,
        "b must have the mass of a, 1, got 2; give reach to transport unequal masses",
        x,
        y,
        a,
        2 * b,
    )
    refused(ValueError, "a must have some mass, got weights that are all zero", x, y, 0 * a, b)
    refused(ValueError, "x_rows must have at least one row on one of the ranks, got none on any", x[:0], y)
    batched = x[None] if odd else x
    with pytest.raises(ValueError, match=f"rank {last}: x_rows must have shape .* as batches are not spread"):
        distributed.sinkhorn(batched, y, eps=0.5)
    huge = [1e200 * part for part in (x, y)]
    refused(
        ValueError, "the sqeuclidean cost between x and y overflows torch.float64; scale them down", *huge
    )
    with pytest.raises(
        ValueError, match=r"eps must be larger beside the costs, got 1e-18: torch.float64 does not"
    ):
        distributed.sinkhorn(x, y, a, b, eps=1e-18)


def check_products_that_do_not_fit_are_a_sentence_everywhere():
    x, y, a, b = rows_of(parts())
    solved = distributed.sinkhorn(x, y, a, b, eps=0.5)
    last, odd = SIZE - 1, RANK == SIZE - 1
    with pytest.raises(
        ValueError, match=r"the shape of v beyond its rows must be the same .*, got \[3\] on rank 0"
    ):
        solved.apply(torch.cat([y, y], 1) if odd else y)
    with pytest.raises(ValueError, match=f"rank {last}: v must have this rank's .* rows"):
        solved.barycentric(torch.zeros(77, 2, dtype=y.dtype) if odd else y)
    with pytest.raises(
        ValueError, match="all ranks must call the same, in the same order, got apply on rank 0"
    ):
        solved.apply_t(x) if odd else solved.apply(y)
    with pytest.raises(NotImplementedError, match="hold every pair of rows that are spread over ranks"):
        solved.plan()


def check_a_rank_that_does_not_come():
    # the last, as a group is of no use afterwards
    x, y, a, b = rows_of(parts())
    if RANK == SIZE - 1:
        time.sleep(2.0)
        return
    with pytest.raises(RankError) as found:
        distributed.sinkhorn(x, y, a, b, eps=0.5, timeout=0.5)
    assert str(found.value) == f"rank {SIZE - 1} is gone, or did not answer within 0.5 s, at sinkhorn"


CHECKS = {
    name.removeprefix("check_"): run for name, run in list(globals().items()) if name.startswith("check_")
}


def die_in_the_middle(folder: Path) -> None:
    """Rank 1 ends without a word; the others write what they are told."""
    half_step, seen = iteration.Iteration.half_step, []

    def ending(self, turned):
        seen.append(turned)
        if RANK == 1 and len(seen) == 5:
            os._exit(3)
        return half_step(self, turned)

    iteration.Iteration.half_step = ending
    try:
        distributed.sinkhorn(*rows_of(parts()), eps=0.1, tol=0.0, max_iter=100, timeout=20.0)
    except RankError as error:
        (folder / f"{RANK}.txt").write_text(str(error), encoding="utf-8")


def main() -> None:
    warnings.simplefilter("error")
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # clouds of this size are streamed by one process too, to have the same arithmetic
    transport_clouds.are_large = lambda x, y: True
    if sys.argv[2:] == ["death"]:
        die_in_the_middle(folder)
        os._exit(0)
    told = {}
    for name, check in CHECKS.items():
        try:
            check()
        except BaseException:
            # what follows would wait for those who go on
            told[name] = traceback.format_exc()
            break
        told[name] = ""
    (folder / f"{RANK}.json").write_text(json.dumps(told), encoding="utf-8")
    # a group with a rank that did not come cannot be taken down in order
    os._exit(0)


if __name__ == "__main__":
    main()
