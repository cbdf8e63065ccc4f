"""The geodesic losses by the published recipe: real subspaces, a constant kernel, no chord."""

import pytest
import torch

from geokernels.pipelines import ClipInversionConfig
from geokernels.pipelines.guidance.terms import Texts, guiding_terms, read_texts
from geokernels.reference import geodesic as reference

D = 24


def unit(*size, seed):
    rows = torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def leading(rows, count):
    """The leading right-singular directions of rows, ``(D, count)``."""
    return torch.linalg.svd(rows)[2][:count].mT


def texts_of(before, after, count):
    change = after - before
    return Texts(before, after, leading(change / change.norm(dim=-1, keepdim=True), count))


@pytest.mark.parametrize(("views", "rank"), [(2, 2), (3, 1), (8, 6), (20, 18)])
def test_the_consistency_is_that_of_subspaces_of_all_views_but_two(views, rank):
    current = unit(views, D, seed=1).requires_grad_()
    source, before, after = unit(views, D, seed=2), unit(9, D, seed=3), unit(9, D, seed=4)
    texts = texts_of(before, after, 7)
    config = ClipInversionConfig(recipe="published", loss="geodesic")
    found = guiding_terms(current, source, None, texts, config, unmoved=False)["consistency"]

    change = current - source
    change = change / change.norm(dim=-1, keepdim=True)
    asked = after - before
    asked = (asked / asked.norm(dim=-1, keepdim=True)).mean(0)
    towards = (asked / asked.norm()).expand_as(change)
    basis = leading(change.detach(), rank)
    expected = 1 - reference.geodesic_cosine(change, towards, basis, texts.basis).mean()
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)
    gradients = [torch.autograd.grad(loss, current, retain_graph=True)[0] for loss in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("recipe", "rank"), [("published", 6), ("world", 8)])
def test_the_regularisation_has_as_many_directions_as_its_recipe_says(recipe, rank):
    current, previous, source = unit(8, D, seed=1), unit(8, D, seed=5), unit(8, D, seed=2)
    texts = texts_of(unit(9, D, seed=3), unit(9, D, seed=4), 7)
    config = ClipInversionConfig(recipe=recipe, loss="geodesic")
    found = guiding_terms(current, source, previous, texts, config, unmoved=False)["regularisation"]
    start, end = leading(previous, rank), leading(current, rank)
    expected = 1 - reference.geodesic_cosine(previous, current, start, end).mean()
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)


def test_by_rank_one_and_through_the_bases_it_only_grows_with_the_directional_loss():
    """So it is called: the two order any pictures alike."""
    source, before, after = unit(1, D, seed=2), unit(1, D, seed=3), unit(1, D, seed=4)
    change = torch.nn.functional.normalize(after - before, dim=-1)
    texts = Texts(before, after, change.mT)
    pictures = torch.nn.functional.normalize(source + change * torch.linspace(0, 2, 9)[:, None] + 0.1, dim=-1)
    orders = []
    for loss, name in (("geodesic", "consistency"), ("directional", "directional")):
        config = ClipInversionConfig(recipe="world", loss=loss)
        terms = [
            guiding_terms(p[None], source, None, texts, config, unmoved=False)[name].item() for p in pictures
        ]
        orders.append(sorted(range(9), key=terms.__getitem__))
    assert orders[0] == orders[1]


def test_the_subspace_of_the_text_is_that_of_all_templates_but_two(tiny_encoder):
    encoder = tiny_encoder(dim=100)
    config = ClipInversionConfig(recipe="published")
    assert len(config.templates) == 79
    assert read_texts(encoder, "a cat", "a dog", config).basis.shape == (100, 77)
    assert read_texts(encoder, "a cat", "a dog", ClipInversionConfig(recipe="world")).basis.shape[1] == 1
