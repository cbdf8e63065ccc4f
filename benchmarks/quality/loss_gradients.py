"""How alike the losses pull: cosines of their gradients on the same parameters, along edits and adaptations.

    python -m benchmarks.quality.loss_gradients --out benchmarks/results/loss-gradients.json

Runs follow the geodesic loss; at some of their steps every loss's main term is differentiated at the same
place. Seeds below 1000, as this explains results and is none.

  geo~dir     cosine of the gradients of the geodesic and the directional loss
  geo~sph     of the geodesic and the spherical one
  step        length of the regularisation's gradient, as a share of the consistency's
  agreement   mean cosine of one picture's (or view's) change of features with the mean change
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geokernels import world
from geokernels._files import write_json
from geokernels.losses.directional import unit_rows
from geokernels.models import load_clip, load_generator
from geokernels.pipelines import Adaptation, AdaptationConfig, ClipInversion, ClipInversionConfig
from geokernels.pipelines.guidance.terms import MAIN, GuidanceConfig, Texts, guiding_terms

from ..harness.machine import machine
from .edits import attribute_of, draw

SEED = 3
LOSSES = ("directional", "spherical", "geodesic")
TARGETS = ("a star", "a red object")


def pulls(
    current: Tensor,
    source: Tensor,
    previous: Tensor,
    texts: Texts,
    config: GuidanceConfig,
    parameters: Sequence[nn.Parameter],
) -> dict[str, float]:
    """The columns of one place; features ``(B, D)``, ``current`` with a graph to ``parameters``."""
    slopes = {}
    for loss in LOSSES:
        chosen = replace(config, loss=loss)
        terms = guiding_terms(current, source, previous, texts, chosen, unmoved=False)
        for name in (MAIN[loss], "regularisation"):
            if name in terms:
                gradients = torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True)
                flat = torch.cat([slope.flatten() for slope in gradients if slope is not None])
                slopes[name] = chosen.weight(name) * flat
    change = unit_rows((current - source).detach())
    geodesic = slopes["consistency"]
    return {
        "geo~dir": F.cosine_similarity(geodesic, slopes["directional"], dim=0).item(),
        "geo~sph": F.cosine_similarity(geodesic, slopes["spherical"], dim=0).item(),
        "step": (slopes["regularisation"].norm() / geodesic.norm()).item(),
        "agreement": (change @ unit_rows(change.mean(0))).mean().item(),
    }


def of_edit(index: int, rank: int | None, steps: Sequence[int], encoder) -> list[dict]:
    """Along one edit of a picture."""
    scene, target = draw(SEED, index, attribute_of(index, index + 1))
    texts = world.caption(scene)[0], world.caption(target)[0]
    config = ClipInversionConfig(recipe="world", rank=rank)
    chance = torch.Generator().manual_seed(index)
    run = ClipInversion(world.render(scene)[0], [encoder], *texts, config=config, generator=chance)
    rows = []
    while run.index <= max(steps):
        if run.index in steps:
            guidance = run.guidance
            guidance.begin_step(run.index, run.source)
            kept = guidance.kept
            current = guidance.see(run.edit(run.source)[0], guidance.views)[0]
            given = kept["source_features"][0], kept["features"][0], guidance.texts[0], config
            cosines = pulls(current, *given, list(run.edit.parameters()))
            rows.append({"run": f"edit {index}", "rank": rank or "full", "at": run.index, **cosines})
        run.step()
    return rows


def of_adaptation(target: str, steps: Sequence[int], encoder, model) -> list[dict]:
    """Along one adaptation."""
    chance = torch.Generator().manual_seed(0)
    run = Adaptation(
        model, [encoder], "an object", target, config=AdaptationConfig(recipe="world"), generator=chance
    )
    rows = []
    while run.index <= max(steps):
        if run.index in steps:
            batch = run.next_batch()
            compared = batch.current[0], batch.source[0], batch.previous[0]
            cosines = pulls(*compared, run.texts[0], run.config, batch.parameters)
            rows.append({"run": f"to {target}", "rank": run.config.rank, "at": run.index, **cosines})
        run.step()
    return rows


def as_markdown(rows: Sequence[dict]) -> str:
    """One line a place."""
    head = tuple(rows[0])
    lines = [head, ("---",) * len(head)]
    lines += [tuple(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encoder, model = load_clip(), load_generator()
    rows = [
        row
        for rank in (1, None)
        for index in range(args.edits)
        for row in of_edit(index, rank, (1, 10, 20), encoder)
    ]
    rows += [row for target in TARGETS for row in of_adaptation(target, (1, 5, 10), encoder, model)]
    write_json(args.out, {"rows": rows, "machine": machine()})
    print(as_markdown(rows))


if __name__ == "__main__":
    main()
