"""Paths between prompts: which row goes where, whatever model reads them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from geokernels import displacement
from geokernels.models.text_to_image import CONTENT, END, PADDING, START, Embedding
from geokernels.pipelines.interpolate.couplings import kantorovich_pairs, permutation, prompt_path, slerp
from geokernels.testing import cloud, directions


def key(rows: int, seed: int, *, content: int | None = None, D: int = 6, pooled: bool = False) -> Embedding:
    """A start row, content, an end row, padding."""
    content = rows - 2 if content is None else content
    kinds = [START, *[CONTENT] * content, END, *[PADDING] * (rows - content - 2)]
    return Embedding(
        cloud(rows, D, seed=seed), torch.tensor(kinds), cloud(5, seed=seed + 100) if pooled else None
    )


def squared(x, y):
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2


class TestExact:
    def test_is_the_cheapest_assignment(self):
        x, y = key(9, 0), key(9, 1)
        cost = squared(x.rows, y.rows)
        chosen = permutation(x, y)
        best = cost[linear_sum_assignment(cost.numpy())].sum()
        assert sorted(chosen.tolist()) == list(range(9))
        torch.testing.assert_close(cost[torch.arange(9), chosen].sum(), best)

    def test_is_the_path_of_displacement(self):
        x, y = key(9, 0), key(9, 1)
        times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
        (segment,) = prompt_path([x, y]).segments
        torch.testing.assert_close(segment.at(times), displacement(x.rows, y.rows, times))

    def test_finds_a_permutation_of_the_same_rows(self):
        x, order = key(12, 0), torch.randperm(12)
        (segment,) = prompt_path([x, Embedding(x.rows[order], x.kinds[order])]).segments
        torch.testing.assert_close(segment.end, segment.start, rtol=0, atol=0)

    def test_permutations_compose_over_keys(self):
        keys = [key(8, seed) for seed in range(4)]
        path = prompt_path(keys)
        for before, after in pairwise(path.segments):
            torch.testing.assert_close(before.end, after.start, rtol=0, atol=0)
        chosen = permutation(keys[1], keys[2])
        arrived = permutation(keys[0], keys[1])
        torch.testing.assert_close(path.segments[1].end, keys[2].rows[chosen][arrived], rtol=0, atol=0)


class TestRows:
    def test_pinned_keeps_start_and_end(self):
        x, y = key(10, 0, content=3), key(10, 1, content=6)
        chosen = permutation(x, y, rows="pinned")
        assert chosen[0] == 0
        assert chosen[4] == 7

    def test_blockwise_lets_only_the_surplus_cross(self):
        x, y = key(10, 0, content=3), key(10, 1, content=6)
        chosen = permutation(x, y, rows="blockwise")
        crossing = x.kinds != y.kinds[chosen]
        assert int(crossing.sum()) == 3
        assert set(x.kinds[crossing].tolist()) == {PADDING}

    def test_random_keeps_to_the_mode_too(self):
        x, y = key(10, 0, content=3), key(10, 1, content=3)
        chance = torch.Generator().manual_seed(0)
        for _ in range(5):
            chosen = permutation(x, y, rows="blockwise", generator=chance)
            assert (x.kinds == y.kinds[chosen]).all()

    def test_start_rows_without_a_partner_are_refused(self):
        x, y = key(6, 0), key(6, 1)
        y = y._replace(kinds=torch.full_like(y.kinds, CONTENT))
        with pytest.raises(ValueError, match="differ in their start or end rows; take 'all'"):
            prompt_path([x, y], rows="pinned")


def test_random_permutations_are_all_equally_likely():
    x, y, chance = key(3, 0), key(3, 1), torch.Generator().manual_seed(0)
    counts: dict[tuple, int] = {}
    for _ in range(600):
        order = tuple(permutation(x, y, generator=chance).tolist())
        counts[order] = counts.get(order, 0) + 1
    # five standard deviations of a binomial around 100
    assert len(counts) == 6
    assert all(abs(count - 100) < 5 * 9.2 for count in counts.values())


class TestEntropic:
    def test_tends_to_the_exact_path(self):
        x, y = key(9, 0), key(9, 1)
        exact = prompt_path([x, y]).segments[0].end
        errors = [
            (prompt_path([x, y], coupling="entropic", eps=eps).segments[0].end - exact).norm()
            for eps in (0.3, 0.03, 0.003)
        ]
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.05 * errors[0]

    def test_much_regularisation_sends_every_row_to_the_mean(self):
        x, y = key(9, 0), key(9, 1)
        end = prompt_path([x, y], coupling="entropic", eps=1e4).segments[0].end
        torch.testing.assert_close(end, y.rows.mean(0).expand(9, -1), rtol=0, atol=1e-3)

    def test_takes_prompts_of_any_lengths_and_keeps_rows_continuous(self):
        path = prompt_path([key(5, 0), key(8, 1), key(7, 2)], coupling="entropic")
        assert [tuple(segment.end.shape) for segment in path.segments] == [(5, 6), (5, 6)]
        torch.testing.assert_close(path.segments[0].end, path.segments[1].start, rtol=0, atol=0)

    def test_identical_rows_move_nowhere(self):
        same = Embedding(torch.ones(4, 3), torch.full((4,), CONTENT))
        end = prompt_path([same, same], coupling="entropic").segments[0].end
        torch.testing.assert_close(end, same.rows)


class TestDifferentLengths:
    @pytest.mark.parametrize("n, m", [(2, 3), (4, 6), (5, 7), (6, 3)])
    def test_plan_is_that_of_the_linear_programme(self, n, m):
        x, y = cloud(n, 4, seed=n), cloud(m, 4, seed=m + 50)
        source, target = kantorovich_pairs(x, y)
        assert (source.bincount(minlength=n) == len(source) // n).all()
        assert (target.bincount(minlength=m) == len(source) // m).all()
        cost = squared(x, y)
        marginals = torch.cat([torch.kron(torch.eye(n), torch.ones(m)), torch.eye(m).repeat(1, n)])
        masses = [1 / n] * n + [1 / m] * m
        best = linprog(cost.flatten().numpy(), A_eq=marginals.numpy(), b_eq=masses).fun
        assert math.isclose(cost[source, target].mean(), best, rel_tol=1e-7)

    def test_a_prompt_said_twice_stays_where_it_is(self):
        x = cloud(3, 4, seed=0)
        source, target = kantorovich_pairs(x, x.repeat(2, 1))
        assert len(source) == 6
        torch.testing.assert_close(x[source], x.repeat(2, 1)[target], rtol=0, atol=0)

    def test_lengths_that_share_no_factor(self):
        # an assignment of their parts had costs of 11640 x 11640
        source, target = kantorovich_pairs(cloud(97, 4, seed=0), cloud(120, 4, seed=1))
        assert len(source) == 11640
        assert len({*zip(source.tolist(), target.tolist())}) <= 97 + 120 - 1

    def test_too_many_rows_are_refused_with_the_remedy(self):
        with pytest.raises(
            ValueError, match=r"at most 16384 rows of equal .* got 16770; take coupling 'entro"
        ):
            prompt_path([key(129, 0), key(130, 1)])

    @pytest.mark.parametrize("how", [{"coupling": "row"}, {"coupling": "random"}, {"rows": "pinned"}])
    def test_other_ways_need_as_many_rows(self, how):
        how = {"generator": torch.Generator(), **how}
        with pytest.raises(ValueError, match=r"as many rows each .* got 5 and 8; 'ot' with 'all' takes any"):
            prompt_path([key(5, 0), key(8, 1)], **how)


class TestSlerp:
    def test_turns_at_even_speed_and_changes_length_evenly(self):
        x, y = 2 * directions(4, 7, seed=0), 3 * directions(4, 7, seed=1)
        found = slerp(x, y, torch.linspace(0, 1, 5))
        torch.testing.assert_close(found[0], x)
        torch.testing.assert_close(found[-1], y)
        torch.testing.assert_close(
            found.norm(dim=-1), torch.linspace(2, 3, 5).double()[:, None].expand(-1, 4)
        )
        unit = found / found.norm(dim=-1, keepdim=True)
        turns = (unit[1:] * unit[:-1]).sum(-1).arccos()
        torch.testing.assert_close(turns, turns[:1].expand_as(turns))

    @pytest.mark.parametrize("scale", [0.0, 1.0, -1.0, 1 + 1e-12], ids=["zero", "same", "opposite", "close"])
    def test_is_straight_where_there_is_no_arc(self, scale):
        x = directions(1, 5, seed=0)
        t = torch.tensor([0.0, 0.25, 1.0])
        expected = torch.stack([torch.lerp(x, scale * x, share) for share in t.double()])
        torch.testing.assert_close(slerp(x, scale * x, t), expected)

    @given(st.integers(0, 10_000), st.floats(1e-6, 3.14))
    @settings(max_examples=30, deadline=None)
    def test_is_exact_at_any_angle(self, seed, angle):
        u, v = torch.linalg.qr(cloud(5, 2, seed=seed)).Q.T
        between = slerp(
            u, math.cos(angle) * u + math.sin(angle) * v, torch.tensor([0.3], dtype=torch.float64)
        )[0]
        half = 0.3 * angle
        torch.testing.assert_close(between, math.cos(half) * u + math.sin(half) * v, rtol=0, atol=1e-9)


def test_pooled_vectors_turn_from_key_to_key():
    keys = [key(4, seed, pooled=True) for seed in range(3)]
    path = prompt_path(keys)
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(path.pooled_at(1, t), slerp(keys[1].pooled, keys[2].pooled, t))
    assert path.locate(0.75) == (1, 0.5)
    assert path.locate(1.0) == (1, 1.0)


def test_half_precision_is_coupled_in_float64():
    x, y = key(9, 0), key(9, 1)
    low = [Embedding(k.rows.to(torch.bfloat16), k.kinds) for k in (x, y)]
    (segment,) = prompt_path(low).segments
    assert segment.at(torch.tensor([0.5])).dtype == torch.bfloat16
    exact = permutation(*(Embedding(k.rows.double(), k.kinds) for k in low))
    torch.testing.assert_close(segment.end, low[1].rows[exact], rtol=0, atol=0)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"keys": [key(4, 0)]}, "prompts must be at least two, got 1"),
        ({"keys": [key(4, 0), key(4, 1, D=7)]}, "read by one text encoder, got rows of width 6 and 7"),
        ({"keys": [key(4, 0), key(4, 1, pooled=True)]}, "every prompt must have a pooled vector, or none"),
        ({"keys": [key(4, 0), key(4, 1)._replace(rows=torch.full((4, 6), math.nan))]}, "must be finite"),
        ({"coupling": "nearest"}, "coupling must be one of ot, entropic, row, slerp, random, got 'nearest'"),
        ({"rows": "some"}, "rows must be one of all, pinned, blockwise, got 'some'"),
        ({"coupling": "random"}, "generator must be given for the random coupling"),
    ],
)
def test_bad_arguments_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        prompt_path(**{"keys": [key(4, 0), key(4, 1)], **change})
