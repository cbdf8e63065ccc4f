"""The demonstration's photographs, of which one becomes the other."""

from collections.abc import Callable
from importlib import util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.pictures import read_picture
from ..pipelines import Blend, BlendConfig

# Both lie in scikit-image's folder, which the package does not carry. The first is NASA's, in the public
# domain (https://flic.kr/p/r9qvLn); the second Stefan van der Walt's, who gave it away (CC0).
FIRST, SECOND = "astronaut.png", "chelsea.png"
NAMES = ("Eileen Collins, by NASA (public domain)", "Chelsea the cat, by Stefan van der Walt (CC0)")
FACE = (15, 185, 95, 350)  # of the astronaut: rows and columns
# pixels that belong together in the two as they are shown: eyes, nose, mouth, sides of the head, cheeks
PAIRS = (
    (191.0, 152.0, 170.0, 114.0),
    (269.0, 157.0, 317.0, 136.0),
    (228.0, 189.0, 262.0, 243.0),
    (227.0, 229.0, 252.0, 272.0),
    (101.0, 140.0, 36.0, 110.0),
    (366.0, 115.0, 362.0, 120.0),
    (152.0, 210.0, 80.0, 210.0),
    (308.0, 200.0, 340.0, 205.0),
)


def photographs() -> tuple[Tensor, Tensor]:
    """A face and a cat's, of one size, ``(3, H, W)`` each.

    Raises:
        ImportError: If scikit-image is not installed, or has other files.
    """
    found = util.find_spec("skimage")
    folder = None if found is None else Path(found.origin).parent / "data"
    if folder is None or not all((folder / name).is_file() for name in (FIRST, SECOND)):
        raise ImportError("the photographs are scikit-image's: pip install scikit-image")
    second = read_picture(folder / SECOND).rgb
    top, bottom, left, right = FACE
    face = read_picture(folder / FIRST).rgb[:, top:bottom, left:right]
    first = F.interpolate(face[None], second.shape[1:], mode="bicubic", align_corners=False)
    return first[0].clamp(0, 1), second


def blend_photographs(config: BlendConfig, on_step: Callable[[str, str], None]) -> Blend | str:
    """Blend the photographs; or why that cannot be done here."""
    try:
        run = Blend(*photographs(), config=config, fixed=torch.tensor(PAIRS, dtype=torch.float32))
        run.finish(lambda run: on_step("one photograph becomes another", ""))
    except ImportError as error:
        return str(error)
    return run


def facts_of_blend(run: Blend | str) -> dict:
    """What ``run.json`` says of it."""
    if isinstance(run, str):
        return {"left_out": run}
    return {
        "first": NAMES[0],
        "second": NAMES[1],
        "fixed": run.fixed.tolist(),
        "missed": round(run.missed, 3),
        "folded": round(run.folded, 6),
        "frames": run.config.frames,
    }
