"""Do the default settings of ``morph`` leave a photograph a photograph?

    python -m benchmarks.quality.photographs --out benchmarks/results/photographs.json [--sheet SHEET.png]

Six photographs of scikit-image's data and two collages of rendered scenes, 256 pixels on the longer side, are
morphed by the defaults: with the rendered world's CLIP, which takes the world's recipe, and with a ViT-B-32
of random weights, which takes the published one. Neither knows what the prompts say of a photograph, so that
whatever changes is harm.

  ssim    structural similarity with the source, of the colours; 1 is equal
  faint   share of pixels that are the source's to the bit
  opacity mean, of the edit layer
  course  the three after every tenth step

Results are kept picture by picture: the same command goes on where it was stopped. ``--only world`` or
``--only ViT-B-32`` takes one of the two, ``--pictures chelsea`` one picture (repeat it for more), and
``--first`` stops after so many of the recipe's steps, whose lengths stay those of the whole. ``--views``
takes fewer than the recipe has, for all steps in less time: its rows are kept apart.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels import world
from geokernels._files import write_json
from geokernels.environment import versions
from geokernels.media.pictures import grid, write_picture
from geokernels.models import ClipEncoder, load_clip
from geokernels.pipelines import ClipInversion, ClipInversionConfig

from ..harness.machine import machine

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "camera", "rocket", "grass")
COLLAGES = ("collage of 4", "collage of 9")
SIDE = 256
TEXTS = "a red circle", "a blue square"
LOOKED = 10  # steps between two looks at a picture on its way


def picture(name: str) -> Tensor:
    """One of the pictures, ``(3, H, W)``."""
    if name in COLLAGES:
        side = round(int(name.split()[-1]) ** 0.5)
        scenes = world.sample_scenes(side**2, generator=torch.Generator().manual_seed(side))
        rows = world.render(scenes).unflatten(0, (side, side))
        whole = rows.permute(2, 0, 3, 1, 4).reshape(1, 3, side * 64, side * 64)
    else:
        from skimage import data

        shot = np.asarray(getattr(data, name)())
        shot = np.repeat(shot[..., None], 3, 2) if shot.ndim == 2 else shot[..., :3]
        whole = torch.from_numpy(shot.copy()).permute(2, 0, 1)[None].float() / 255
    scale = SIDE / max(whole.shape[-2:])
    size = [round(side * scale) for side in whole.shape[-2:]]
    return F.interpolate(whole, size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def random_clip() -> ClipEncoder:
    """A ViT-B-32 of random weights, always the same."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    return ClipEncoder("ViT-B-32 of random weights", model.eval(), open_clip.get_tokenizer("ViT-B-32"))


def morphed(
    source: Tensor, encoder: ClipEncoder, first: int | None, views: int | None
) -> tuple[dict, Tensor]:
    """What the first steps of the defaults, all of them with None, make of a picture, under so many views."""
    config = ClipInversionConfig(**({} if views is None else {"views": views}))
    chance = torch.Generator().manual_seed(0)
    run = ClipInversion(source, [encoder], *TEXTS, config=config, generator=chance)
    course = {}
    while not run.done and run.index != first:
        run.step()
        if run.index % LOOKED == 0:
            course[run.index] = changed(run, source)
    row = {name: getattr(run.config, name) for name in ("recipe", "loss", "views", "steps")}
    return {**row, "taken": run.index, **changed(run, source), "course": course}, run.picture()


def changed(run: ClipInversion, source: Tensor) -> dict:
    """How far the picture has come from the source by now."""
    from skimage.metrics import structural_similarity

    result = run.picture()
    planes = [x.permute(1, 2, 0).numpy() for x in (source, result)]
    return {
        "ssim": float(structural_similarity(*planes, channel_axis=2, data_range=1.0)),
        "faint": (result == source).all(0).float().mean().item(),
        "opacity": run.history[-1, run.terms.index("opacity")].item(),
    }


def as_markdown(summary: dict) -> str:
    """One row a picture."""
    names = [name for name in summary["models"] if not name.endswith(" views")]
    heads = " | ".join(f"{name}: steps | SSIM | untouched" for name in names)
    lines = [f"| | {heads} |", "|---|" + "---|---|---|" * len(names)]
    for shown in (*PHOTOGRAPHS, *COLLAGES):
        cells = [summary["models"][name].get(shown) for name in names]
        told = ["not measured | | " if c is None else _told(c) for c in cells]
        lines.append(f"| {shown} | {' | '.join(told)} |")
    return "\n".join(lines)


def _told(row: dict) -> str:
    steps = row["steps"] if row["taken"] == row["steps"] else f"{row['taken']} of {row['steps']}"
    return f"{steps} | {row['ssim']:.2f} | {row['faint']:.0%}"


def main(argv: list[str] | None = None) -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--only", choices=("world", "ViT-B-32"))
    parser.add_argument("--pictures", choices=(*PHOTOGRAPHS, *COLLAGES), action="append")
    parser.add_argument("--first", type=int)
    parser.add_argument("--views", type=int)
    options = parser.parse_args(argv)
    summary = json.loads(options.out.read_text()) if options.out.exists() else {"models": {}}
    summary |= {"machine": machine(), "versions": versions(), "texts": TEXTS}
    shown: list[Tensor] = []
    for label, load in (("world", load_clip), ("ViT-B-32", random_clip)):
        if options.only not in (None, label):
            continue
        encoder = load()
        label += f", {options.views} views" if options.views else ""
        rows = summary["models"].setdefault(label, {})
        for name in options.pictures or (*PHOTOGRAPHS, *COLLAGES):
            if name in rows and rows[name]["taken"] >= (options.first or rows[name]["steps"]):
                continue
            source = picture(name)
            rows[name], result = morphed(source, encoder, options.first, options.views)
            print(label, name, rows[name], flush=True)
            write_json(options.out, summary)
            shown += [squared(source), squared(result)]
            if options.sheet:
                write_picture(options.sheet, grid(shown, columns=4))
    print(as_markdown(summary))


def squared(x: Tensor) -> Tensor:
    """``x`` (3, H, W) in the middle of a square."""
    H, W = x.shape[-2:]
    return F.pad(
        x, ((SIDE - W) // 2, SIDE - W - (SIDE - W) // 2, (SIDE - H) // 2, SIDE - H - (SIDE - H) // 2)
    )


if __name__ == "__main__":
    main()
