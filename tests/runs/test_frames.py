"""Frames are kept where most happens, small, and come back as they were."""

from itertools import pairwise

import torch

from geokernels.media.pictures import fit
from geokernels.runs.frames import as_kept, as_shown, kept_steps


def test_frames_are_kept_at_both_ends_and_denser_at_first():
    steps = kept_steps(100, 6)
    assert (steps[0], steps[-1], len(steps)) == (0, 100, 6)
    gaps = [b - a for a, b in pairwise(steps)]
    assert gaps == sorted(gaps)
    assert kept_steps(2, 6) == [0, 1, 2]


def test_what_is_kept_is_small_and_in_eight_bits():
    pictures = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(0))
    kept = as_kept(pictures, 20)
    assert (kept.dtype, kept.shape) == (torch.uint8, (2, 3, 12, 20))
    assert torch.equal(as_kept(pictures, 50), pictures.mul(255).round().to(torch.uint8))
    (first, _) = as_shown(list(kept))
    assert (first - fit(pictures[0], 20)).abs().max() <= 0.5 / 255 + 1e-6
