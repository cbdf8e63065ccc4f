"""An inversion finds what the generator drew, resumes to the bit, and takes pictures of any proportions."""

import pytest
import torch

from geokernels.pipelines import WInversion, WInversionConfig, invert_picture
from geokernels.pipelines.adapt.w_inversion import middle_square

SHORT = WInversionConfig(steps=8, searched=6, chunk=4)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def drawn(tiny_generator):
    with torch.no_grad():
        return tiny_generator(torch.randn(1, 7, generator=chance(5)))[0].clamp(0, 1)


def test_it_draws_the_picture_better_and_better(tiny_generator, drawn):
    config = WInversionConfig(steps=60, searched=20)
    seen = []
    found = invert_picture(
        tiny_generator, drawn, config=config, generator=chance(), callback=lambda run: seen.append(run.index)
    )
    assert seen == list(range(1, 61))
    assert found.history[-1, 1] < found.history[0, 1] / 2
    assert found.w.shape == (1, 6, 7)
    assert found.picture.shape == drawn.shape
    assert (found.picture - drawn).square().mean() < found.history[0, 1]


@pytest.mark.parametrize("stop", [0, 3])
def test_resumed_run_is_identical_to_the_bit(tiny_generator, drawn, tmp_path, stop):
    whole = invert_picture(tiny_generator, drawn, config=SHORT, generator=chance())
    first, second = (WInversion(tiny_generator, drawn, config=SHORT, generator=chance()) for _ in range(2))
    for _ in range(stop):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    while not second.done:
        second.step()
    assert torch.equal(second.w, whole.w)
    assert torch.equal(second.history, whole.history)


@pytest.mark.parametrize("size", [(40, 23), (9, 64), (16, 16)], ids=str)
def test_pictures_of_any_proportions(tiny_generator, size):
    run = WInversion(
        tiny_generator, torch.rand(3, *size, generator=chance()), config=SHORT, generator=chance()
    )
    run.step()
    assert run.goal.shape == (1, 3, 16, 16)


def test_the_middle_square_is_taken():
    picture = torch.zeros(3, 4, 8)
    picture[:, :, 2:6] = 1
    assert torch.equal(middle_square(picture, 4), torch.ones(3, 4, 4))


def test_the_distance_can_be_another_s(tiny_generator, drawn):
    def distance(a, b):
        return (a - b).abs().mean((1, 2, 3))

    found = invert_picture(tiny_generator, drawn, config=SHORT, generator=chance(), perceptual=distance)
    assert found.history[0, 2] > 0


def test_a_bad_loss_stops_and_keeps_the_last_good_code(tiny_generator, drawn):
    spoilt = [1.0, 1.0, float("nan")]

    def distance(a, b):
        return spoilt[run.index] * (a - b).abs().mean()

    run = WInversion(tiny_generator, drawn, config=SHORT, generator=chance(), perceptual=distance)
    run.step()
    run.step()
    good = run.w.detach().clone()
    with pytest.raises(FloatingPointError, match="the loss at step 2 is nan; lower the learning rate"):
        run.step()
    assert torch.equal(run.w, good)
    assert (run.index, len(run.history)) == (2, 2)


def test_out_of_memory_is_one_sentence_that_names_the_knobs(tiny_generator, drawn, monkeypatch):
    def fail(*args, **kw):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB.")

    run = WInversion(tiny_generator, drawn, config=SHORT, generator=chance())
    monkeypatch.setattr(tiny_generator, "synthesis", fail)
    with pytest.raises(MemoryError, match=r"^the device ran out of memory; lower chunk \(--chunk\).*$"):
        run.step()


def test_refusals(tiny_generator, drawn):
    with pytest.raises(ValueError, match=r"picture must have shape \(3, H, W\), got \(1, 4, 4\)"):
        WInversion(tiny_generator, torch.zeros(1, 4, 4), generator=chance())
    with pytest.raises(TypeError, match="picture must be float16"):
        WInversion(tiny_generator, torch.zeros(3, 4, 4, dtype=torch.uint8), generator=chance())
    with pytest.raises(ValueError, match="perceptual must be a finite number, 0 or above, got -1"):
        WInversionConfig(perceptual=-1)
    state = WInversion(tiny_generator, drawn, config=SHORT, generator=chance()).state_dict()
    with pytest.raises(ValueError, match="made with another picture"):
        WInversion(tiny_generator, drawn / 2, config=SHORT, generator=chance()).load_state_dict(state)
