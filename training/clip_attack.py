"""Pictures perturbed so that the model mistakes one attribute, by projected gradient descent in L2."""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from geokernels.world import ATTRIBUTES

from .clip_data import UNSAID
from .clip_losses import encode_pictures

# Radius of an attack on each attribute, as a share of the square root of the area it shows in: about half of
# what it takes to make another value true of the picture, for the values that look most alike.
REACH = {"shape": 0.1, "colour": 0.2, "background": 0.2, "size": 0.15, "texture": 0.1}
# How often each is attacked. Shape is the hardest to learn and the first to be lost to robustness.
OFTEN = {"shape": 1.0, "colour": 3.0, "background": 3.0, "size": 1.0, "texture": 2.0}


def radii(attacked: Tensor, area: Tensor, pixels: int) -> Tensor:
    """How far each picture may be moved, in L2 over pixels and channels, ``(B,)``.

    Args:
        attacked: Which attribute is to be mistaken, ``(B,)``.
        area: Pixels of the object, ``(B,)``.
        pixels: Of a picture.
    """
    seen = torch.where(attacked == tuple(ATTRIBUTES).index("background"), pixels - area, area)
    return torch.tensor([REACH[a] for a in ATTRIBUTES])[attacked] * seen.sqrt()


def attack(
    model: CLIP, pictures: Tensor, answers: Tensor, truth: Tensor, goal: Tensor, eps: Tensor, steps: int
) -> Tensor:
    """Perturb pictures within L2 balls so that the model mistakes one attribute (projected gradient descent).

    Args:
        model: Attacked in evaluation mode, as it ships.
        pictures: ``(B, 3, H, W)`` in [0, 1].
        answers: Text features of the captions to choose from, ``(B, V, dim)``, scaled; a zero row is none.
        truth: Which answer is right, ``(B,)``.
        goal: The answer to steer to, ``(B,)``, or ``UNSAID`` for any wrong one.
        eps: Radius of each ball, ``(B,)``; 0 leaves the picture as it is.
        steps: How many.

    Returns:
        The perturbed pictures, without gradient.
    """
    eps = eps[:, None, None, None]
    delta = torch.zeros_like(pictures)
    for _ in range(steps):
        delta.requires_grad_()
        logits = choose(encode_pictures(model, pictures + delta), answers)
        targeted = F.cross_entropy(logits, goal.clamp(min=0), reduction="none")
        escape = F.cross_entropy(logits, truth, reduction="none")
        (slope,) = torch.autograd.grad(torch.where(goal == UNSAID, -escape, targeted).sum(), delta)
        delta = delta.detach() - 0.6 * eps * slope / _length(slope).clamp(min=1e-12)
        delta = delta * (eps / _length(delta).clamp(min=1e-12)).clamp(max=1)
        delta = (pictures + delta).clamp(0, 1) - pictures
    return pictures + delta


def choose(features: Tensor, answers: Tensor) -> Tensor:
    """Logits over the ``answers`` (B, V, dim) of each picture; zero rows cannot be chosen."""
    logits = torch.einsum("bd,bvd->bv", F.normalize(features, dim=-1), answers)
    return logits.masked_fill((answers == 0).all(-1), -1e4)


def _length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]
