"""Counterexamples of shape: none is the shape it counters, and the pool keeps what fooled the model."""

import pytest
import torch

from geokernels.world import ATTRIBUTES, edit, judge, render, sample_scenes

pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def small():
    """A tiny CLIP, its captions, and an encoder of their rows."""
    from open_clip.model import CLIP

    from training.clip_data import Captions
    from training.clip_files import QUICK, architecture
    from training.clip_losses import encode_tokens

    captions = Captions()
    torch.manual_seed(0)
    model = CLIP(**architecture(QUICK["world"], len(captions.used)))

    def encode(rows):
        return encode_tokens(model, captions.tokens[rows.flatten()]).view(*rows.shape, -1)

    return model, captions, encode


def test_no_counterexample_is_the_shape_it_counters(small):
    from training.clip_outlines import ALIKE, SHOWN, hardest, new_pool

    model, _, _ = small
    generator = torch.Generator().manual_seed(0)
    first = sample_scenes(24, generator=generator)
    second = edit(first, "shape", generator=generator)
    asked = torch.randn(24, 128, generator=generator)
    wrong = hardest(model, first, second, asked, render(first), new_pool(), generator)
    assert wrong.shape == (SHOWN, 24, 3, 64, 64)
    assert ALIKE < 0.8, "what the judge would name a shape must not be shown as none"
    seen = judge(wrong.flatten(0, 1)).values[:, tuple(ATTRIBUTES).index("shape")]
    # an object cut by the border, or in two pieces, may be misread
    assert (seen == second.shape.repeat(SHOWN)).float().mean() <= 0.05


def test_the_pool_keeps_what_fooled_the_model_and_nothing_else_changes(small):
    from training.clip_outlines import new_pool, outline_terms

    model, captions, encode = small
    pool, before = new_pool(), new_pool()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    terms = outline_terms(model, torch.tensor(10.0), captions, encode, pool, 4, generator)
    changed = (pool != before).any(-1).sum()
    assert 1 <= changed <= 8, "two outlines a scene"
    assert torch.isfinite(pool).all()
    weights = {k for k, _ in model.named_parameters()}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if k in weights)
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.visual.parameters() if p.grad is not None)
