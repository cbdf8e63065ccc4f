"""What lives, and what an edit keeps for the way back, is counted as long as it does, and once."""

import pytest
import torch

from benchmarks.cost.counting import Memory, Saved

BYTES = 4000


@pytest.fixture
def leaf():
    return torch.ones(BYTES // 4, requires_grad=True)


def kept(saved):
    return torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack)


def test_what_a_graph_has_let_go_is_not_counted_with_the_next(leaf):
    saved = Saved([])
    with kept(saved):
        for _ in range(3):
            torch.autograd.grad(leaf.exp().sum(), leaf)
    assert (saved.peak, saved.now) == (BYTES, 0)


def test_graphs_that_live_together_add_up(leaf):
    saved = Saved([])
    with kept(saved):
        graphs = [leaf.exp() for _ in range(3)]
        assert (saved.peak, saved.now) == (3 * BYTES, 3 * BYTES)
        torch.autograd.grad(sum(graph.sum() for graph in graphs), leaf)
    assert saved.now == 0


def test_a_storage_is_counted_once_and_weights_are_not(leaf):
    saved, weight = Saved([leaf]), torch.ones(BYTES // 4, requires_grad=True)
    with kept(saved):
        graphs = [leaf * weight, leaf[:10] * weight[:10]]
        assert saved.now == BYTES
        del graphs[0]
        assert saved.now == BYTES
        del graphs[0]
    assert saved.now == 0


def test_what_is_computed_again_was_not_kept(leaf):
    saved = Saved([])
    with kept(saved):
        again = saved.closing(lambda: leaf.exp())()
    assert saved.peak == 0
    assert torch.autograd.grad(again.sum(), leaf)[0].allclose(again)


def test_memory_is_what_lives_at_once():
    held = torch.zeros(1024)
    with Memory([held, held.view(2, 512)]) as memory:
        for _ in range(3):
            first = held + 1
            second = first.view(32, 32) * 2
            del first, second
    assert memory.held == 4096
    assert memory.peak == 3 * 4096
    assert memory.now == 4096
