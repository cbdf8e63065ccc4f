"""Every convention moves the numbers it is about and no others, and none moves what the judge says."""

import math
from dataclasses import replace

import pytest
import torch

from geokernels import world
from geokernels.losses import feature_distance
from geokernels.media.pictures import read_picture, through_jpeg
from geokernels.metrics import Conventions
from geokernels.metrics.conventions import WORLD
from geokernels.models import load_clip
from geokernels.runs.measures import Measures, compared, mask_of

pytest.importorskip("torchmetrics")

JUDGED = {"reached", "kept", "right", "background"}
OUTSIDE = {"psnr_outside", "ssim_outside", "mse_outside", "perceptual_outside"}
PICTURE = {"clip_score", "directional", "structure", "perceptual"}


@pytest.fixture(scope="module")
def encoder():
    return load_clip("world-evaluation")


def measures(encoder, conventions):
    def distance(pictures, others):
        return feature_distance(encoder.image_features(pictures), encoder.image_features(others))

    def tokens(pictures):
        return encoder.encode_image_and_tokens(pictures)[1]

    names = {"structure": "tokens", "perceptual": "features"}
    return Measures(encoder, tokens, distance, names, conventions=conventions)


@pytest.fixture(scope="module")
def edit(tmp_path_factory):
    """An edit whose object changed as asked, on a background that is not quite what it was."""
    folder = tmp_path_factory.mktemp("edits")
    world.write_edit_folder(folder, 1, seed=5, size=64)
    (case,) = world.read_edit_folder(folder)
    source, made = (read_picture(path).rgb for path in (case.picture, case.edited))
    noise = 0.05 * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))
    return case, source, ((made + noise).clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize(
    "departure, moved",
    [
        ({"jpeg": 75}, {*PICTURE, *OUTSIDE}),
        ({"compare_size": 128}, {*OUTSIDE}),
        ({"border": True}, {"psnr_outside", "ssim_outside", "mse_outside"}),
        ({"fill": "grey"}, {"ssim_outside", "perceptual_outside"}),
        ({"fill": "source"}, {"ssim_outside", "perceptual_outside"}),
        ({"counted": "outside"}, {"psnr_outside", "ssim_outside", "mse_outside"}),
        ({"ssim": "uniform"}, {"ssim_outside"}),
        ({"whole_masks": "counted"}, set()),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_what_each_convention_moves(encoder, edit, departure, moved):
    plain = Conventions(**WORLD)
    before, after = (measures(encoder, how)(*edit) for how in (plain, replace(plain, **departure)))
    other = {name for name in before if before[name] != after[name]}
    assert moved <= other
    if "compare_size" not in departure and "border" not in departure:
        assert other == moved
    assert not other & JUDGED


def test_a_jpeg_is_of_the_edit_alone(encoder, edit):
    case, source, made = edit
    plain = measures(encoder, Conventions(**WORLD))
    found = measures(encoder, Conventions(**{**WORLD, "jpeg": 60}))(case, source, made)
    by_hand = plain(case, source, through_jpeg(made, 60))
    assert {**found, **dict.fromkeys(JUDGED)} == {**by_hand, **dict.fromkeys(JUDGED)}


def test_masks_that_leave_nothing(encoder, edit):
    case, source, made = edit
    for runs, lost in (((0, 512 * 512), OUTSIDE), ((), {"clip_score_edit"})):
        given = replace(case, runs=runs)
        skipped = measures(encoder, Conventions(**WORLD))(given, source, made)
        assert {name for name, value in skipped.items() if value is None} - JUDGED == lost
        counted = measures(encoder, Conventions(**WORLD, whole_masks="counted"))(given, source, made)
        assert None not in {counted[name] for name in lost}
        if lost == OUTSIDE:
            assert counted["psnr_outside"] == math.inf
            assert (counted["mse_outside"], counted["perceptual_outside"]) == (0, 0)
            assert counted["ssim_outside"] == pytest.approx(1)


def test_pictures_are_compared_at_one_size():
    wide = torch.rand(3, 40, 90)
    assert compared(wide, Conventions(compare_size=None)) is wide
    assert compared(wide, Conventions(compare_size=90)) is wide
    assert compared(wide, Conventions(compare_size=180)).shape == (3, 80, 180)


def test_masks():
    case = world.EditCase("k", None, None, "a", "b", "", 0, (), (0, 1, 512 * 256 + 256, 1))
    # PIE-Bench's own gain a border, which at this size is all but the middle
    assert bool(mask_of(case, 4, 2, Conventions()).all())
    exact = Conventions(border=False)
    expected = [[True, False], [False, False], [False, True], [False, False]]
    assert mask_of(case, 4, 2, exact)[0].tolist() == expected
    # neither pixel lies where one of the eight is centred
    assert not bool(mask_of(case, 4, 2, replace(exact, mask_fit="nearest")).any())
