"""What the losses say of pictures that show what was asked, and of pictures that show something else.

    python -m benchmarks.quality.loss_contrast --out benchmarks/results/plasticity/contrast.json

Renders stand in for edits, so that no optimisation is in it: of what was asked, of another value of the asked
attribute, and of another attribute changed, seen under the same views. A loss that guides well is low for
the first and high for the others. Seeds below 1000, as this explains results and is none.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from geokernels import world
from geokernels._files import write_json
from geokernels.models import ClipEncoder
from geokernels.pipelines.guidance.clip import Guidance
from geokernels.pipelines.guidance.terms import MAIN, guiding_terms

from ..harness.machine import machine
from .edits import attribute_of, draw
from .plasticity import ARMS, EDITS
from .plasticity_edits import settings
from .quick_clip import quick_clip

SEED = 3
SHOWN = ("what was asked", "another value", "another attribute")
LOSSES = {"directional": EDITS.views, "geodesic": EDITS.views, "geodesic, 16 views": 16}


@torch.no_grad()
def of_edit(index: int, encoder: ClipEncoder) -> dict[str, dict[str, float]]:
    """Every loss of each of the pictures."""
    attribute = attribute_of(index, index + 1)
    other = "colour" if attribute == "background" else "background"
    scene, target = draw(SEED, index, attribute)
    texts = world.caption(scene)[0], world.caption(target)[0]
    chance = torch.Generator().manual_seed(index)
    wrong = target
    while wrong.names() in (target.names(), scene.names()):
        wrong = world.edit(scene, attribute, generator=chance)
    beside = world.edit(scene, other, generator=chance)
    found: dict[str, dict[str, float]] = {}
    for name, views in LOSSES.items():
        config = replace(settings(EDITS, ARMS[name.split(",")[0]], 1.0), views=views)
        guidance = Guidance([encoder], *texts, config, key=index)
        drawn = guidance.draw(0, torch.device("cpu"))
        before = guidance.see(world.render(scene), drawn)[0]
        found[name] = {}
        for shown, picture in zip(SHOWN, (target, wrong, beside)):
            after = guidance.see(world.render(picture), drawn)[0]
            terms = guiding_terms(after, before, None, guidance.texts[0], config, unmoved=False)
            found[name][shown] = terms[MAIN[config.loss]].item()
    return found


def as_markdown(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Means over the edits, and how often the loss of what was asked is the least."""
    head = ("loss", *SHOWN, "least for what was asked")
    lines = [head, ("---",) * len(head)]
    for name in rows[0]:
        means = (f"{statistics.fmean(row[name][shown] for row in rows):.3f}" for shown in SHOWN)
        least = sum(min(row[name], key=row[name].get) == SHOWN[0] for row in rows)
        lines.append((name, *means, f"{least} of {len(rows)}"))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = quick_clip()
    rows = [of_edit(index, encoder) for index in range(args.edits)]
    write_json(args.out, {"rows": rows, "machine": machine()})
    print(as_markdown(rows))


if __name__ == "__main__":
    main()
