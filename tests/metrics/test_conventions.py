"""Conventions are PIE-Bench's own unless others are asked for, and their fingerprint tells any two apart."""

from dataclasses import fields, replace

import pytest

from geokernels.metrics import Conventions
from geokernels.metrics.conventions import WORLD

# of each setting another value than the published one
OTHERS = {
    "brackets": "kept",
    "jpeg": None,
    "compare_size": None,
    "resample": "bilinear",
    "mask_fit": "nearest",
    "border": False,
    "fill": "grey",
    "counted": "outside",
    "whole_masks": "counted",
    "clip": "ViT-B-32/openai",
    "ssim": "uniform",
    "perceptual": "alex",
    "structure": "dino_vits8",
    "structure_layer": 8,
    "structure_size": 448,
    "structure_scale": 1.0,
    "structure_antialias": True,
    "structure_class_token": False,
}


def test_every_setting_is_in_the_fingerprint():
    assert OTHERS.keys() == {field.name for field in fields(Conventions)}
    found = {replace(Conventions(), **{name: value}).fingerprint for name, value in OTHERS.items()}
    assert len({*found, Conventions().fingerprint}) == len(OTHERS) + 1


def test_the_fingerprint_stays_what_it_was():
    # published tables bear it
    assert Conventions().fingerprint == "f2812bf8bfd1"
    assert Conventions(structure_scale=255) == Conventions()
    assert Conventions(structure_scale=255).fingerprint == Conventions().fingerprint


def test_departures_are_said_as_they_are_typed():
    published = Conventions()
    assert published.said() == f"Conventions {published.fingerprint}: those of PIE-Bench."
    ours = Conventions(**WORLD, fill="grey")
    assert ours.departures == {**WORLD, "fill": "grey"}
    said = "those of PIE-Bench but for jpeg=none, compare_size=none, border=false, fill=grey."
    assert ours.said() == f"Conventions {ours.fingerprint}: {said}"
    assert ours.record() == {
        "fingerprint": ours.fingerprint,
        "departures": ["jpeg", "compare_size", "border", "fill"],
    }


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"fill": "pink"}, "fill must be one of black, grey, source, got 'pink'"),
        ({"jpeg": 0}, "jpeg must lie between 1 and 100, or be none, got 0"),
        ({"compare_size": 8}, "compare_size must be at least 16, or none, got 8"),
        ({"structure_layer": 12}, "structure_layer must lie between 0 and 11, got 12"),
        ({"structure_scale": 0}, "structure_scale must be a finite number above 0, got 0"),
        (
            {"structure": "dino_vitb16", "structure_size": 200},
            "structure_size must be a multiple of 16, the patches of dino_vitb16, got 200",
        ),
    ],
    ids=["word", "jpeg", "size", "layer", "scale", "patches"],
)
def test_refusals(settings, said):
    with pytest.raises(ValueError, match=said):
        Conventions(**settings)
