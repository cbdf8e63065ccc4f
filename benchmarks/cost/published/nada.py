"""StyleGAN-NADA in the original's pattern of work: the yardstick of ``benchmarks.cost.adapt``.

Written from the description of the method, not from its code. What distinguishes the pattern: fresh latents
every step, whose frozen pictures are drawn and encoded again; a choice of layers every step, from a batch of
eight, in one piece, while every weight of the generator takes a gradient; and encoders whose own weights take
gradients.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from geokernels.losses import directional_loss, unit_rows
from geokernels.models import Generator
from geokernels.models.clip import ClipEncoder
from geokernels.pipelines.adapt.layer_choice import moved_most, trained_parameters, usual_count
from geokernels.pipelines.adapt.nada import BETAS

CHOSEN_FROM = 8  # pictures by which the layers are chosen
CODE_RATE = 0.01  # of the step of gradient descent on the codes


class OriginalPattern:
    """An adaptation with the directional loss, step by step.

    Args:
        model: The generator; kept as the frozen one beside a copy that learns.
        encoders: CLIP encoders; copied, and their weights take gradients.
        source: What the generator draws.
        target: What it shall draw.
        steps: How many there will be, for the schedule of the rate.
        rate: Of the first step.
        batch: Latents a step.
        generator: Source of random numbers.
    """

    def __init__(
        self,
        model: Generator,
        encoders: Sequence[ClipEncoder],
        source: str,
        target: str,
        *,
        steps: int,
        rate: float,
        batch: int,
        templates: Sequence[str],
        generator: torch.Generator,
    ):
        self.frozen = model.requires_grad_(False)
        self.model = copy.deepcopy(model).requires_grad_(True)
        self.encoders = [copy.deepcopy(encoder).requires_grad_(True) for encoder in encoders]
        self.texts = [encoder.encode_text([source, target], templates) for encoder in self.encoders]
        every = trained_parameters(self.model, range(model.config.codes), "layers")
        self.optimizer = torch.optim.Adam(every, lr=rate, betas=BETAS)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.batch, self.chance, self.moved = batch, generator, False

    def step(self) -> Tensor:
        """Choose the layers, then train them on fresh latents; the loss, a scalar."""
        rows = self.choose()
        self.model.requires_grad_(False)
        for parameter in trained_parameters(self.model, rows, "layers"):
            parameter.requires_grad_()
        w = self.codes(self.batch)
        with torch.no_grad():
            frozen = self.frozen.synthesis(w)
        pictures = self.model.synthesis(w)
        losses = []
        for encoder, (before, after) in zip(self.encoders, self.texts):
            source, current = encoder.encode_image(frozen), encoder.encode_image(pictures)
            if self.moved:
                losses.append(directional_loss(current, source, before, after))
            else:
                # where nothing has moved, the limit of the cosine's gradient up to its length, as in ours
                losses.append(1 - ((current - source) @ unit_rows((after - before).mean(0))).mean())
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.moved = True
        return loss.detach()

    def choose(self) -> list[int]:
        """The rows of W+ that a step of gradient descent on the codes moves most."""
        self.model.requires_grad_(True)
        start = self.codes(CHOSEN_FROM)[:, None].repeat(1, self.model.config.codes, 1)
        codes = start.clone().requires_grad_()
        descent = torch.optim.SGD([codes], lr=CODE_RATE)
        pictures = self.model.synthesis(codes)
        unlike = [
            1 - (encoder.encode_image(pictures) @ unit_rows(after.mean(0))).mean()
            for encoder, (_, after) in zip(self.encoders, self.texts)
        ]
        torch.stack(unlike).mean().backward()
        descent.step()
        moved = (codes.detach() - start).abs().mean((0, 2))
        return moved_most(moved, usual_count(self.model.config.size))

    @torch.no_grad()
    def codes(self, count: int) -> Tensor:
        """Codes of fresh latents, ``(count, D)``."""
        z = torch.randn(count, self.model.config.style_dim, generator=self.chance)
        return self.frozen.mapping(z.to(self.frozen.latent_avg))
