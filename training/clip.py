"""Train a CLIP of the world from nothing: ``python -m training.clip --out runs/clip``.

The one that guides goes through three stages. "clean" trains both towers on rendered pairs, helped by a head
that reads the attributes off the picture features; "captions" drops the head for captions that name one
attribute each, and adds outlines that are none of the shapes; "robust" fine-tunes the image tower against
pictures perturbed within L2 balls, so that its gradients point at what a picture shows. What is shipped lies
between the weights before and after the robust stage: that wins back accuracy that the stage costs, and keeps
the robustness it brings against small perturbations, though less of it against large ones.

The one that only evaluates (``--model evaluation``) has another seed, other sizes and no layer in common: its
image tower is a vision transformer, helped in its clean stage by a second head that draws the object's mask
from its patches. Nothing ever follows its gradients, so it has no robust stage.

Between stages the weights are rounded to half precision, as they are shipped. Every step draws its own data
from (seed, stage, step), so a run resumed from its checkpoints ends in the same weights, to the bit, as one
never interrupted (on the same machine, with the same number of threads).
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from geokernels.world import ATTRIBUTES, TEMPLATES, Scenes, object_mask, render, sample_scenes

from .clip_attack import OFTEN, attack, choose, radii
from .clip_data import (
    UNSAID,
    VALUES,
    Captions,
    answers_of,
    augment,
    centred_outline,
    pair_captions,
    sample_pairs,
    sample_said,
    single_captions,
    values_of,
)
from .clip_files import MODELS, QUICK, SCALE_LIMIT, Config, architecture, export, facts_of
from .clip_losses import (
    contrastive_loss,
    counterfactual_loss,
    directional_loss,
    encode_patches,
    encode_pictures,
    encode_tokens,
    mask_loss,
    reading_loss,
)
from .clip_outlines import new_pool, outline_terms
from .steps import Stage, chance, rate

OUTLINE_SIDE = 16  # pixels of the outline that a head draws


class Aids(nn.Module):
    """What helps the towers to learn, and is discarded in the end.

    Attributes:
        head: Reads every attribute off the picture features.
        mask: Draws the object's mask from the patches of a vision transformer; where the model is one.
        outline: Draws the object's outline from the picture features, wherever and however large it is.
        pool: Outlines that fooled the model, ``(shapes, outlines, dimensions)``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head = nn.Linear(config.embed_dim, sum(VALUES))
        if config.masks:
            self.mask = nn.Linear(config.vision["width"], config.vision["patch_size"] ** 2)
            self.outline = nn.Linear(config.embed_dim, OUTLINE_SIDE**2)
        self.register_buffer("pool", new_pool())


@dataclass(frozen=True)
class Training:
    """What every step needs."""

    config: Config
    model: CLIP
    aids: Aids
    captions: Captions


def drawing_terms(
    training: Training, pictures: Tensor, first: Scenes, second: Scenes, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features of views of ``pictures``, and the losses of drawing what they show.

    A transformer that is only told names takes long to see that an outline matters at all.
    """
    config, aids = training.config, training.aids
    masks = torch.cat([object_mask(s, config.picture) for s in (first, second)])
    views = augment(torch.cat([pictures, masks], 1), generator=generator, share=config.views)
    views, masks = views.split((3, 1), 1)
    features, patches = encode_patches(training.model, views, config.masks)
    drawn = aids.mask(patches.movedim(1, -1)).movedim(-1, 1)
    wanted = torch.cat([centred_outline(s, OUTLINE_SIDE) for s in (first, second)])
    return features, {
        "mask": 2 * mask_loss(drawn, masks),
        "outline": 4 * F.binary_cross_entropy_with_logits(aids.outline(features), wanted.flatten(1)),
    }


def clean_step(training: Training, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
    """The loss terms of the stages on clean pictures."""
    config, captions, aids = training.config, training.captions, training.aids
    model, n, clean, terms = training.model.train(), config.pairs, stage != "captions", {}
    first, second, which = sample_pairs(n, generator=generator)
    values = torch.cat([values_of(first), values_of(second)])
    pictures = torch.cat([render(first, config.picture), render(second, config.picture)])
    if clean and config.masks:
        features, drawn = drawing_terms(training, pictures, first, second, generator)
        terms |= drawn
    else:
        features = encode_pictures(model, augment(pictures, generator=generator, share=config.views))
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
    terms["contrastive"] = contrastive_loss(scale * image @ text.T, values, said)
    if clean:
        terms["head"] = config.reading * reading_loss(aids.head(features), values)
    terms["counterfactual"] = 0.5 * counterfactual_loss(scale, image_pair, text_pair)
    terms["direction"] = 0.5 * directional_loss(image_pair, text_pair)
    if not clean:
        single = encode_tokens(model, captions.tokens[captions.rows(template[0], single_captions())])
        terms["single"] = 0.5 * reading_loss(scale * image @ single.T, values)

    if not clean and config.outlines:

        def encode(rows: Tensor) -> Tensor:
            return encode_tokens(model, captions.tokens[rows.flatten()]).view(*rows.shape, -1)

        terms |= outline_terms(model, scale, captions, encode, aids.pool, config.outlines, generator)
    return terms


def robust_step(
    training: Training, step: int, table: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The robust stage's loss terms; ``table`` has the frozen text tower's features of every caption."""
    config, captions, aids = training.config, training.captions, training.aids
    model, n = training.model.eval(), config.robust_pairs
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
    eps = radii(attacked, area, config.picture**2) * min(1.0, (step + 1) / (0.3 * config.steps["robust"]))
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
    outlines = outline_terms(model, scale, captions, table.__getitem__, aids.pool, config.outlines, generator)
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


@torch.no_grad()
def named_right(training: Training, n: int = 256) -> dict[str, float]:
    """Zero-shot accuracy of each attribute on ``n`` scenes that no step shows, for the log."""
    config, captions, model = training.config, training.captions, training.model.eval()
    scenes = sample_scenes(n, generator=chance(config.seed, "watch", 0))
    image = encode_pictures(model, render(scenes, config.picture))
    rows = captions.rows(torch.zeros((), dtype=torch.long), single_captions())
    said = (image @ encode_tokens(model, captions.tokens[rows]).T).split(VALUES, 1)
    return {a: (s.argmax(1) == getattr(scenes, a)).float().mean().item() for a, s in zip(ATTRIBUTES, said)}


def step_of(training: Training, stage: Stage) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """The loss of a stage, as a function of chance."""
    if stage.name != "robust":
        return lambda generator: clean_step(training, stage.name, generator)
    table = text_table(training.model.eval(), training.captions)
    return lambda generator: robust_step(training, stage.step, table, generator)


def train(config: Config, out: Path, *, quiet: bool = False) -> Path:
    """Train all stages, or what is left of them, in ``out``; returns the weights file to ship."""
    captions = Captions()
    torch.manual_seed(config.seed)
    model = CLIP(**architecture(config, len(captions.used)))
    training = Training(config, model, Aids(config), captions)
    seconds: dict[str, float] = {}
    for name, steps in config.steps.items():
        if seconds:
            round_to_half(model)
        before = copy.deepcopy(model.visual.state_dict())
        # the text tower is frozen in the robust stage: no loss of that stage reaches it
        stage = Stage(
            name,
            {"model": model, "aids": training.aids},
            out,
            decay=0.05,
            average=config.average if name == "robust" else 0.0,
            settle=False,
            betas=(0.9, 0.98),
        )
        stage.run(
            steps,
            step_of(training, stage),
            rate=lambda step, steps=steps, name=name: rate(
                step, steps, config.rates[name], warm=max(1, steps // 20)
            ),
            seed=config.seed,
            save_every=config.save_every,
            quiet=quiet,
            watch=lambda: named_right(training),
        )
        seconds[name] = stage.seconds
        if name != "robust":
            export(config, model, captions, out, f"{config.name}-{name}", facts_of(config, seconds))
    if "robust" in config.steps:
        stage.averaged()
        after = model.visual.state_dict()
        between = {
            k: before[k].lerp(v, config.robust_share) for k, v in after.items() if v.is_floating_point()
        }
        model.visual.load_state_dict(between, strict=False)
    return export(config, model, captions, out, config.name, facts_of(config, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(MODELS), default="world", help="the one that guides, or not")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of checkpoints and weights; resumes there"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    parser.add_argument("--seed", type=int, help="the shipped one's by default")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = (QUICK if arguments.quick else MODELS)[arguments.model]
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    print(train(config, arguments.out))


if __name__ == "__main__":
    main()
