"""Pictures of another range than [0, 1] are refused by what they hold, at every door."""

import pytest
import torch

from geokernels.models import load_clip, load_generator, load_text_to_image
from geokernels.pipelines import (
    ClipInversion,
    ClipInversionConfig,
    LayerEdit,
    WInversion,
    ddim_inversion,
    prepare_footage,
)

SOURCE, TARGET = "a red circle", "a blue circle"
RANGES = [
    (255.0, r"\[0, 1\], got values from .* to 25\d.*; divide by 255"),
    (-2.0, r"\[0, 1\], got values from -1.* to .*; take \(x \+ 1\) / 2"),
    (1.2, r"\[0, 1\], got values from .* to 1\.\d+; clamp them"),
]


def chance():
    return torch.Generator().manual_seed(0)


DOORS = {
    "clip_inversion": lambda p: ClipInversion(p, [load_clip()], SOURCE, TARGET, generator=chance()),
    "edit_layer": lambda p: LayerEdit(p, [load_clip()], SOURCE, TARGET, generator=chance()),
    "WInversion": lambda p: WInversion(load_generator("world"), p, generator=chance()),
    "prepare_footage": lambda p: prepare_footage([p], flow=None),
    "ddim_inversion": lambda p: ddim_inversion(load_text_to_image("world"), p[None], [SOURCE]),
}


@pytest.mark.parametrize("scale, sentence", RANGES, ids=["bytes", "signed", "overshoot"])
@pytest.mark.parametrize("door", DOORS)
def test_pictures_of_another_range_are_refused(door, scale, sentence):
    picture = torch.rand(3, 64, 64, generator=chance()) * scale
    with pytest.raises(ValueError, match=sentence):
        DOORS[door](picture)


def test_clip_refuses_bytes_and_takes_what_generators_and_noise_do_beyond():
    encoder, picture = load_clip(), torch.rand(1, 3, 64, 64, generator=chance())
    with pytest.raises(ValueError, match=r"pictures must lie in \[0, 1\], .*; divide by 255"):
        encoder.encode_image(picture * 255)
    encoder.encode_image(picture * 4 - 2)


def test_a_picture_to_the_edge_of_its_range_is_taken():
    picture = torch.zeros(3, 32, 32)
    picture[:, :16] = 1
    ClipInversion(
        picture, [load_clip()], SOURCE, TARGET, config=ClipInversionConfig(guess=2), generator=chance()
    )
