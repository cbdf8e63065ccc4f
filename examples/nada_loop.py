"""A training loop as StyleGAN-NADA writes it, with the geodesic losses dropped in.

    python examples/nada_loop.py --from "an object" --to "a large object" --steps 40 --out large.png

Two copies of a generator, one frozen; in every step both draw the same codes, and the loss takes the pictures
and the words. What differs from the loop that is replaced stands in the two lines marked below.
``geokernels.pipelines.adapt_generator`` does the same more cheaply.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn

from geokernels.losses import GeodesicConsistencyLoss, GeodesicRegularisationLoss
from geokernels.models import load_clip, load_generator
from geokernels.world import TEMPLATES


def adapt(
    source: str, target: str, *, steps: int, batch: int = 4, seed: int = 0
) -> tuple[nn.Module, list[float]]:
    """Adapt the embedded generator; the adapted copy, and the loss at every step."""
    encoder = load_clip()
    frozen = load_generator().requires_grad_(False)
    trained = copy.deepcopy(frozen)
    parameters = [p for layer in trained.convs for p in layer.conv.modulation.parameters()]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=0.02, betas=(0.0, 0.99))

    clip_loss = GeodesicConsistencyLoss(encoder, templates=TEMPLATES)  # was: CLIPLoss(...)
    step_loss = GeodesicRegularisationLoss(encoder)  # new: holds each step to the one before

    chance = torch.Generator().manual_seed(seed)
    w = frozen.mapping(torch.randn(batch, frozen.config.style_dim, generator=chance))
    frozen_pictures = frozen.synthesis(w)
    # where nothing has moved no direction has a gradient: begin beside the frozen generator
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.01 * torch.randn(parameter.shape, generator=chance)
    previous, losses = frozen_pictures, []
    for _ in range(steps):
        pictures = trained.synthesis(w)
        loss = clip_loss(frozen_pictures, source, pictures, target) + step_loss(previous, pictures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        previous = pictures.detach()
        losses.append(loss.item())
    return trained, losses


def main() -> None:
    from geokernels.media.pictures import grid, write_picture

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", default="an object")
    parser.add_argument("--to", dest="target", default="a large object")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("adapted.png"))
    arguments = parser.parse_args()
    trained, losses = adapt(arguments.source, arguments.target, steps=arguments.steps)
    with torch.no_grad():
        z = torch.randn(16, trained.config.style_dim, generator=torch.Generator().manual_seed(1))
        write_picture(arguments.out, grid(list(trained(z).clamp(0, 1))))
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}; {arguments.out}")


if __name__ == "__main__":
    main()
