"""A picture styled by text through a small network and a loss on patches, as CLIPstyler does it.

    python examples/patch_style.py photo.png --from "a picture" --to "a blue object" --out styled.png

The network repaints the picture; random patches of what it paints must have moved, in CLIP, from the source
text to the target text, and patches that have are left alone. The geodesic loss stands where the cosine of
directions stood; the rest of such a loop stays as it is.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from geokernels.losses import GeodesicConsistencyLoss, PatchLoss, feature_distance, total_variation
from geokernels.models import load_clip
from geokernels.models.clip import ClipEncoder
from geokernels.world import TEMPLATES


class Painter(nn.Module):
    """A residual network of three convolutions that begins as the identity."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()
        )
        self.head = nn.Conv2d(width, 3, 1)
        nn.init.normal_(self.head.weight, std=0.05)
        nn.init.zeros_(self.head.bias)

    def forward(self, picture: Tensor) -> Tensor:
        """Repaint ``(1, 3, H, W)``."""
        return (picture + self.head(self.body(picture))).clamp(0, 1)


def style(
    picture: Tensor, encoder: ClipEncoder, source: str, target: str, *, steps: int, seed: int = 0
) -> tuple[Tensor, list[float]]:
    """Style ``(1, 3, H, W)`` in [0, 1]; what was painted, and the loss at every step."""
    torch.manual_seed(seed)
    painter = Painter()
    optimizer = torch.optim.Adam(painter.parameters(), lr=2e-3)
    loss = GeodesicConsistencyLoss(encoder, templates=TEMPLATES)
    patch_loss = PatchLoss(loss, patches=16, size=min(48, *picture.shape[-2:]), threshold=0.05)
    with torch.no_grad():
        content, features = encoder.image_features(picture), encoder.encode_image(picture)
    chance, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        painted = painter(picture)
        total = (
            9 * patch_loss(features, source, painted, target, generator=chance)
            + 5 * loss(features, source, painted, target)
            + feature_distance(encoder.image_features(painted), content).mean()
            + 0.1 * total_variation(painted)
        )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    with torch.no_grad():
        return painter(picture), losses


def main() -> None:
    from geokernels.media.pictures import read_picture, write_picture

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--from", dest="source", default="a picture")
    parser.add_argument("--to", dest="target", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("styled.png"))
    arguments = parser.parse_args()
    picture = read_picture(arguments.picture).rgb[None]
    painted, losses = style(picture, load_clip(), arguments.source, arguments.target, steps=arguments.steps)
    write_picture(arguments.out, painted[0])
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}; {arguments.out}")


if __name__ == "__main__":
    main()
