"""Train the world's CLIP from nothing: ``python -m training.clip --out runs/clip``.

Three stages. "clean" trains both towers on rendered pairs, helped by a head that reads the attributes off
the picture features; "captions" drops the head for captions that name one attribute each, and adds outlines
that are none of the shapes; "robust" fine-tunes the image tower against pictures perturbed within L2 balls,
so that its gradients point at what a picture shows. Between stages the weights are rounded to half precision,
as they are shipped. What is shipped lies between the weights before and after the robust stage: that wins
back accuracy that the stage costs, and keeps the robustness it brings against small perturbations, though
less of it against large ones.

Every step draws its own data from (seed, stage, step), so a run resumed from its checkpoint ends in the same
weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import argparse
import copy
import hashlib
import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from geokernels.world import ATTRIBUTES, TEMPLATES, object_mask, render

from .clip_attack import OFTEN, attack, choose, radii
from .clip_data import (
    UNSAID,
    VALUES,
    Captions,
    answers_of,
    augment,
    pair_captions,
    sample_pairs,
    sample_said,
    single_captions,
    values_of,
)
from .clip_files import QUICK, SCALE_LIMIT, Config, architecture, export, facts_of
from .clip_losses import (
    contrastive_loss,
    counterfactual_loss,
    directional_loss,
    encode_pictures,
    encode_tokens,
    reading_loss,
)
from .clip_outlines import new_pool, outline_terms

STAGES = ("clean", "captions", "robust")


@dataclass
class State:
    """Everything a checkpoint holds."""

    model: CLIP
    head: nn.Linear  # reads every attribute off the picture features; discarded in the end
    stage: str = "clean"
    step: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    optimizer: dict | None = None
    before: dict | None = None  # the image tower as the robust stage found it
    average: dict | None = None  # and its running average since
    pool: Tensor = field(default_factory=new_pool)  # outlines that fooled the model

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        kept = {k: v for k, v in vars(self).items() if k not in ("model", "head")}
        partial = path.with_suffix(".partial")
        torch.save({**kept, "model": self.model.state_dict(), "head": self.head.state_dict()}, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Take up where a checkpoint left off."""
        kept = torch.load(path, weights_only=True)
        self.model.load_state_dict(kept.pop("model"))
        self.head.load_state_dict(kept.pop("head"))
        vars(self).update(kept)


def chance(config: Config, stage: str, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    key = hashlib.sha256(f"{config.seed}/{stage}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


def clean_step(
    config: Config, state: State, captions: Captions, generator: torch.Generator
) -> dict[str, Tensor]:
    """The loss terms of the stages on clean pictures."""
    model, n = state.model.train(), config.pairs
    first, second, which = sample_pairs(n, generator=generator)
    values = torch.cat([values_of(first), values_of(second)])
    pictures = torch.cat([render(first, config.picture), render(second, config.picture)])
    features = encode_pictures(model, augment(pictures, generator=generator))
    image = F.normalize(features, dim=-1)

    said = sample_said(values, generator=generator)
    paired = pair_captions(values[:n], values[n:], which, generator=generator)
    template = torch.randint(len(TEMPLATES), (3 * n,), generator=generator)
    rows = torch.cat(
        [
            captions.rows(template[: 2 * n], said),
            captions.rows(template[2 * n :].expand(2, n), paired).flatten(),
        ]
    )
    text, twin = encode_tokens(model, captions.tokens[rows]).split(2 * n)
    image_pair, text_pair = image.view(2, n, -1), twin.view(2, n, -1)
    scale = model.logit_scale.clamp(max=SCALE_LIMIT).exp()
    clean = state.stage == "clean"
    read = state.head(features) if clean else None
    terms = {"contrastive": contrastive_loss(scale * image @ text.T, values, said)}
    if clean:
        terms["head"] = 0.5 * reading_loss(read, values)
    terms["counterfactual"] = 0.5 * counterfactual_loss(scale, image_pair, text_pair)
    terms["direction"] = 0.5 * directional_loss(image_pair, text_pair)
    if not clean:
        single = encode_tokens(model, captions.tokens[captions.rows(template[0], single_captions())])
        terms["single"] = 0.5 * reading_loss(scale * image @ single.T, values)

        def encode(rows: Tensor) -> Tensor:
            return encode_tokens(model, captions.tokens[rows.flatten()]).view(*rows.shape, -1)

        terms |= outline_terms(model, scale, captions, encode, state.pool, config.outlines, generator)
    return terms


def robust_step(
    config: Config, state: State, captions: Captions, table: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The robust stage's loss terms; ``table`` has the frozen text tower's features of every caption."""
    model, n = state.model.eval(), config.robust_pairs
    first, second, which = sample_pairs(n, generator=generator)
    values = torch.cat([values_of(first), values_of(second)])
    pictures = torch.cat([render(first, config.picture), render(second, config.picture)])
    pictures = augment(pictures, generator=generator)
    scale = model.logit_scale.detach().clamp(max=SCALE_LIMIT).exp()

    often = torch.tensor([OFTEN[a] for a in ATTRIBUTES])
    attacked = torch.multinomial(often, 2 * n, replacement=True, generator=generator)
    template = torch.randint(len(TEMPLATES), (2 * n,), generator=generator)
    asked = pair_captions(values, values, attacked, generator=generator)[0]
    answers = scale * answers_of(asked, attacked, template, captions, table)
    truth = values[torch.arange(2 * n), attacked]
    number = torch.tensor(VALUES)[attacked]
    other = (truth + 1 + (torch.rand(2 * n, generator=generator) * (number - 1)).long()) % number
    goal = torch.where(torch.rand(2 * n, generator=generator) < 0.7, other, UNSAID)
    area = torch.cat([object_mask(s, config.picture).sum((1, 2, 3)) for s in (first, second)])
    eps = radii(attacked, area, config.picture**2) * min(
        1.0, (state.step + 1) / (0.3 * config.steps["robust"])
    )
    eps = eps * (torch.rand(2 * n, generator=generator) > 0.25)
    pictures = attack(model, pictures, answers, truth, goal, eps, config.attack_steps)

    features = encode_pictures(model, pictures)
    image = F.normalize(features, dim=-1)
    said = sample_said(values, generator=generator)
    paired = pair_captions(values[:n], values[n:], which, generator=generator)
    text = table[captions.rows(template, said)]
    text_pair = table[captions.rows(template[:n].expand(2, n), paired)]
    image_pair = image.view(2, n, -1)
    single = table[captions.rows(template[:, None], single_captions())]
    outlines = outline_terms(
        model, scale, captions, table.__getitem__, state.pool, config.outlines, generator
    )
    return {
        **outlines,
        "answer": F.cross_entropy(choose(features, answers), truth),
        "contrastive": contrastive_loss(scale * image @ text.T, values, said),
        "counterfactual": 0.5 * counterfactual_loss(scale, image_pair, text_pair),
        "direction": 0.5 * directional_loss(image_pair, text_pair),
        "single": reading_loss(scale * torch.einsum("bd,bnd->bn", image, single), values),
    }


@torch.no_grad()
def text_table(model: CLIP, captions: Captions) -> Tensor:
    """Unit features of every caption, ``(rows, dim)``."""
    return torch.cat([encode_tokens(model, rows) for rows in captions.tokens.split(1024)])


@torch.no_grad()
def round_to_half(model: CLIP) -> None:
    """Round the weights as they are shipped, so that the robust stage starts from the exported file."""
    model.load_state_dict(
        {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    )


def optimizer_of(state: State) -> torch.optim.AdamW:
    """AdamW over what the stage trains; gains, biases and the logit scale are not decayed."""
    trained = {
        "clean": [*state.model.parameters(), *state.head.parameters()],
        "captions": list(state.model.parameters()),
        "robust": list(state.model.visual.parameters()),
    }[state.stage]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    return optimizer


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear warm-up over the first twentieth, then a cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def run_stage(config: Config, state: State, captions: Captions, path: Path, progress: Progress) -> None:
    """Train ``state`` from where it stands to the end of its stage, saving to ``path`` on the way."""
    steps, peak = config.steps[state.stage], config.rates[state.stage]
    optimizer = optimizer_of(state)
    robust = state.stage == "robust"
    table = text_table(state.model.eval(), captions) if robust else None
    if robust and state.average is None:
        state.before = {k: v.detach().clone() for k, v in state.model.visual.named_parameters()}
        state.average = {k: v.clone() for k, v in state.before.items()}
    bar = progress.add_task(state.stage, total=steps, completed=state.step, loss="")
    started = time.perf_counter()
    while state.step < steps:
        generator = chance(config, state.stage, state.step)
        if robust:
            terms = robust_step(config, state, captions, table, generator)
        else:
            terms = clean_step(config, state, captions, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(state.step, steps, peak)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        state.step += 1
        if robust:
            for name, value in state.model.visual.named_parameters():
                state.average[name].lerp_(value.detach(), 1 - config.average)
        if state.step % config.save_every == 0 or state.step == steps:
            state.seconds[state.stage] += time.perf_counter() - started
            started = time.perf_counter()
            state.optimizer = optimizer.state_dict()
            state.save(path)
        progress.update(
            bar, completed=state.step, loss=" ".join(f"{k} {v.item():.3f}" for k, v in terms.items())
        )


def train(config: Config, out: Path, *, quiet: bool = False) -> Path:
    """Train all stages, or what is left of them, in ``out``; returns the robust weights file."""
    out.mkdir(parents=True, exist_ok=True)
    captions = Captions()
    torch.manual_seed(config.seed)
    model = CLIP(**architecture(config, len(captions.used)))
    state = State(model, nn.Linear(config.embed_dim, sum(VALUES)))
    path = out / "clip.ckpt"
    if path.exists():
        state.load(path)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[loss]}"), disable=quiet) as progress:
        for following in STAGES[STAGES.index(state.stage) + 1 :]:
            run_stage(config, state, captions, path, progress)
            export(config, model, captions, out, f"world-clip-{state.stage}", facts_of(config, state.seconds))
            state.stage, state.step, state.optimizer = following, 0, None
            round_to_half(model)
        run_stage(config, state, captions, path, progress)
    shipped = copy.deepcopy(model)
    between = {k: v.lerp(state.average[k], config.robust_share) for k, v in state.before.items()}
    shipped.visual.load_state_dict(between, strict=False)
    return export(config, shipped, captions, out, "world-clip", facts_of(config, state.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of checkpoint and weights; resumes there"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(train(replace(QUICK if arguments.quick else Config(), seed=arguments.seed), arguments.out))


if __name__ == "__main__":
    main()
