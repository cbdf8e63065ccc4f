"""OIG: a picture is edited on its way out of noise, with a step against a loss after each of sampling."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..._modes import own_modes
from ...losses.editing import contrast_loss, resemblance_loss
from ...models.flow import FlowModel, latent_model
from ...models.latents import decode
from ..run import Run, Tell
from ..run_state import checksum, plain
from .classifier_free import guided_output
from .network import checkpointed, frozen, tapped
from .oig_config import OIGConfig, one_on, step_length
from .oig_cycle import CYCLE_TERMS, Cycle, distance
from .source import EditSource, schedule_for

TERMS = ("loss", "clip", "structure", "gradient")
HALF_SCALE = 4096.0  # of losses that run back through float16, whose smallest numbers they would fall below


class OIGResult(NamedTuple):
    """The edited pictures, what they were made from, and every loss at every step.

    Attributes:
        pictures: ``(B, 3, H, W)`` float32 in [0, 1].
        sources: ``(S, 3, H, W)``, as they come out of the same noise with their own captions.
        history: ``(steps, B, terms)`` float32 on the CPU; NaN where a step was not guided.
        terms: Names of its last axis.
    """

    pictures: Tensor
    sources: Tensor
    history: Tensor
    terms: tuple[str, ...]


class OIGEdit(Run):
    """Edits in progress, see :class:`Run`.

    Sources and edits take each step together, so that the features of one step at a time are kept. Nothing
    in it is random: a run resumed from a state ends as if it had never stopped, to the bit on the CPU. No
    gradient of any weight is computed, and none is kept from the modules' owner.

    Args:
        pipeline: Of diffusers: Stable Diffusion 1, 2, XL or 3, or FLUX, with or without LoRA, in any
            precision.
        encoder: A CLIP with the face of :class:`ClipEncoder`.
        source: Of :func:`ddim_inversion`, :func:`flow_inversion` or :func:`draw_source`.
        targets: What the pictures should show: one for each source, or any number for a single one.
        config: See :class:`OIGConfig`.
        decoder: What shows CLIP the picture, such as an ``AutoencoderTiny`` for the same latents; None for
            the pipeline's own. The results are always decoded by the pipeline's own.

    Raises:
        ValueError: For a source or setting that does not suit the pipeline; the message says which.
        TypeError: If the pipeline is of another kind.
    """

    knobs = "the number of edits or decode_size, or use checkpointing, bfloat16 or the tiny decoder"
    replaced = ("sources", "edits", "previous")

    @own_modes
    def __init__(
        self,
        pipeline,
        encoder,
        source: EditSource,
        targets: Sequence[str],
        *,
        config: OIGConfig | None = None,
        decoder=None,
    ):
        self.config = (config or OIGConfig()).settled(pipeline, encoder)
        self.denoiser, self.encoder = latent_model(pipeline), encoder
        self._require_suited()
        self.decoder = self.denoiser.vae if decoder is None else decoder
        targets = require_texts(source.captions, targets)
        if source.model != self.denoiser.digest():
            raise ValueError("source must have been made with the same network, it was made with another")
        self.schedule = schedule_for(self.denoiser, source)
        device, dtype = self.denoiser.device, self.denoiser.dtype
        self.sources = source.latents.to(device, dtype)
        self.edits = self.sources.expand(len(targets), -1, -1, -1).clone()
        self.previous: list[Tensor] | None = None
        self._path = source.path if self.config.anchored else None
        self._away = 0.0  # by which the velocity of an anchored edit would differ from the source's own way
        self._read(source, targets)
        self.cycle = self._begin_cycle() if self.config.cycle else None
        if self.cycle:
            self.replaced = (*OIGEdit.replaced, "cycle.latents")
        facts = {
            "config": plain(self.config),
            "captions": list(source.captions),
            "targets": list(targets),
            "encoder": getattr(encoder, "name", type(encoder).__name__),
            "decoder": type(self.decoder).__name__,
            "dtype": str(self.denoiser.network.dtype),
            "steps": source.steps,
            "unet": source.model,
            "picture": checksum(source.latents),
        }
        terms = TERMS + (CYCLE_TERMS if self.cycle else ())
        self._begin(facts, steps=len(self.schedule), terms=terms)

    def _read(self, source: EditSource, targets: tuple[str, ...]) -> None:
        """Read every prompt once, for the network and for CLIP."""
        captions, B, scale = source.captions, len(targets), self.config.guidance_scale
        each = captions * (B // len(captions))  # of every edit's source
        shown, asked = self.denoiser.read(captions), self.denoiser.read(targets)
        empty = self.denoiser.read([""])
        guided = self.denoiser.guided(empty.repeat(len(captions)), shown, scale)
        self._source_words = (shown,) if source.inverted else guided
        anchored = self._path is not None
        if anchored:
            own = self.config.source_guidance_scale
            guided = self.denoiser.guided(empty.repeat(len(captions)), shown, own)
        # of one pass there is nothing to compare with but that of the source
        alone = len(guided) == 1 and not anchored
        if source.inverted and (self.config.negative == "source" or alone):
            nothing, self._compared_words = self.denoiser.read(each), (shown,)
        else:
            nothing, self._compared_words = empty.repeat(B), guided
        self._words = self.denoiser.guided(nothing, asked, scale)
        texts = [self.encoder.encode_text(prompts)[:, 0].to(self.edits.device) for prompts in (each, targets)]
        self._texts = tuple(texts)

    def _require_suited(self) -> None:
        """Refuse settings that do not go with the model."""
        if not isinstance(self.denoiser, FlowModel):
            if self.config.anchored:
                raise ValueError("anchored must be False for a U-Net, which says no velocity, got True")
            return
        if self.config.cycle:
            raise ValueError(
                "cycle must be 0 for a rectified-flow model, as that of OIG+ is one of DDIM, "
                f"got {self.config.cycle}"
            )
        if self.denoiser.packed and self.config.gradient == "released":
            raise ValueError("gradient must be exact for FLUX, which has no unconditional copy, got released")

    def _begin_cycle(self) -> Cycle:
        repeats, config = len(self.edits) // len(self.sources), self.config
        source = [words.repeat(repeats) for words in self._source_words]
        settings = {"weight": config.cycle, "steps": config.cycle_steps}
        return Cycle(self._output, self.schedule, source, self._words, **settings)

    @property
    def _output(self) -> Callable:
        """The network's, guided; of latents, timestep and words."""
        guided = {"guidance_scale": self.config.guidance_scale, "gradient": self.config.gradient}
        return partial(guided_output, self.denoiser, **guided)

    @property
    def device(self) -> torch.device:
        """Where the latents are."""
        return self.edits.device

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return len(self.edits), len(self.terms)

    @property
    def loss(self) -> float:
        """The mean loss at the last guided step; NaN before the first. Waits for the device."""
        guided = [row[:, 0] for row in self._history if not row[:, 0].isnan().any()]
        return guided[-1].mean().item() if guided else math.nan

    @own_modes
    def pictures(self) -> Tensor:
        """The edits as they stand, ``(B, 3, H, W)``; noise at first."""
        return self.denoiser.pictures(self.edits)

    def guides(self, index: int) -> bool:
        """Whether the step of this number is guided."""
        return index % self.config.every == 0 and index < self.config.until * self.steps

    @property
    def _models(self) -> tuple[nn.Module, nn.Module]:
        return self.denoiser.network, self.decoder

    def _prepare(self, tell: Tell) -> None:
        if self.cycle and self.cycle.latents is None:  # otherwise they are those of a state
            tell("sampling the sources")
            with frozen(*self._models):
                self.cycle.begin(self.sources, self._source_words)
                with checkpointed(*self._models, enabled=self.config.checkpointing):
                    self.cycle.follow(self.edits, 0, scale=self._scale)  # at every step it is one on

    def _step(self) -> Tensor:
        """Take one step of sources and edits, by DDIM or Euler, and one against the gradient in its turn."""
        if self._path is not None and self.index < int(self.config.begin * self.steps):
            return self._step_beside()
        with frozen(*self._models):
            before = self._step_sources()
            if not self.guides(self.index):
                return self._step_unguided()
            with checkpointed(*self._models, enabled=self.config.checkpointing):
                return self._step_guided(before)

    def _step_beside(self) -> Tensor:
        """Take the source's step, without looking at it; no terms."""
        self.sources = self._path[self.index + 1].to(self.sources)
        self.edits = self.sources.expand_as(self.edits).clone()
        return self._no_terms()

    @torch.no_grad()
    def _step_sources(self) -> list[Tensor]:
        """Take the sources' step; their features, ``(R, S, C, H, W)`` each."""
        # at a scale of 1 the copy without the prompt, which is there for its features, has no say
        scale = self.config.guidance_scale if len(self._source_words) == 2 else 1.0
        scale = scale if self._path is None else self.config.source_guidance_scale
        words = self._compared_words
        with tapped(self.denoiser.network, share=self.config.blocks) as features:
            output = guided_output(self.denoiser, self.sources, self._time, words, guidance_scale=scale)
        self.sources = self._follow(output)
        return [part.unflatten(0, (len(words), -1)) for part in features]

    def _follow(self, output: Tensor) -> Tensor:
        """The sources one step on: by ``output``, or, where edits are anchored, as their inversion came."""
        if self._path is None:
            return self._move(self.sources, output)
        here, after = self.schedule.shares[self.index : self.index + 2]
        sources = self._path[self.index + 1].to(self.sources)
        self._away = output - (sources - self.sources) / (after - here)
        return sources

    @torch.no_grad()
    def _step_unguided(self) -> Tensor:
        output, features = self._see(self.edits)
        self.edits, self.previous = self._move(self.edits, output), features
        if self.cycle and self._guides_later:
            self.cycle.advance(self.index + 1)
        return self._no_terms()

    def _no_terms(self) -> Tensor:
        return self.edits.new_full((len(self.edits), len(self.terms)), math.nan, dtype=torch.float32)

    def _step_guided(self, before: list[Tensor]) -> Tensor:
        """Take the edits' step and the one against the gradient; the terms, ``(B, len(terms))``."""
        goal = self.cycle and self.cycle.goal(self.index)
        x = self.edits.detach().requires_grad_()
        output, features = self._see(x)
        picture = self.schedule.split(x, output, self.schedule.shares[self.index]).picture
        # The graph is cut at the pictures and at the features: what decoding keeps is free again before the
        # network's own way back begins, and source features are kept for no way back at all.
        clip, to_picture = self._follow_text(picture)
        structure, to_features = self._keep_structure(features, before)
        terms = [self.config.clip * clip + self.config.structure * structure, clip, structure]
        if goal is not None:
            missing, to_goal = self._close_cycle(picture, goal)
            to_picture = to_picture + to_goal
        scale = self._scale
        paths = [(p, g) for p, g in [(picture, to_picture), *zip(features, to_features)] if p.requires_grad]
        (gradient,) = torch.autograd.grad([p for p, _ in paths], x, [g for _, g in paths])
        gradient = gradient / scale
        _require_finite(gradient, self.index)
        with torch.no_grad():
            self.edits = self._move(x.detach(), output.detach()) - self._length * gradient
        self.previous = [part.detach() for part in features]
        terms.append(gradient.flatten(1).norm(dim=1))
        if goal is not None:
            terms += [missing, self._follow_edits()]
        return torch.stack(terms, 1).float()

    def _see(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The guided output, and features without and with the prompt, ``(2, B, ...)`` or one of each."""
        with tapped(self.denoiser.network, share=self.config.blocks) as features:
            output = self._output(x, self._time, self._words) - self._away
        copies = len(self._words)
        if len(features[0]) == copies * len(x):
            return output, [part.unflatten(0, (copies, -1)) for part in features]
        half = len(features) // 2  # with the prompt first, in a pass of its own
        return output, [torch.stack(pair) for pair in zip(features[half:], features[:half])]

    def _follow_text(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's loss of each edit, and its weighted gradient to the predicted pictures' latents."""
        leaf, side = picture.detach().requires_grad_(), self.encoder.image_size
        shown = decode(self.decoder, leaf, longest=self.config.decode_size)
        if shown.shape[-2:] != (side, side):
            shown = F.interpolate(shown, (side, side), mode="bicubic", antialias=True, align_corners=False)
        loss = contrast_loss(self.encoder.encode_image(shown), *self._texts, margin=self.config.margin)
        (gradient,) = torch.autograd.grad((self._scale * self.config.clip * loss).sum(), leaf)
        return loss.detach(), gradient

    def _keep_structure(self, features: list[Tensor], before: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The structure's loss of each edit, and its weighted gradient to the features."""
        dtype = self.denoiser.dtype
        leaves = [part.detach().to(dtype).requires_grad_() for part in features]
        before = [part.to(dtype) for part in before]
        previous = None if self.previous is None else [part.to(dtype) for part in self.previous]
        loss = resemblance_loss(leaves, before, previous, pull=self.config.pull)
        gradients = torch.autograd.grad((self._scale * self.config.structure * loss).sum(), leaves)
        return loss.detach(), [g.to(part.dtype) for g, part in zip(gradients, features)]

    def _close_cycle(self, picture: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """The cycle's loss of each edit, and its gradient to the picture as the step's length leaves it."""
        leaf = picture.detach().requires_grad_()
        loss = distance(leaf, goal)
        weight = self.cycle.weight(one_on(self.index, self.steps)) / self._length
        (gradient,) = torch.autograd.grad((self._scale * weight * loss).sum(), leaf)
        return loss.detach(), gradient

    def _follow_edits(self) -> Tensor:
        """Take the step of the sources' way back; its loss, NaN where no later step would look at it."""
        if not self._guides_later:
            return self.edits.new_full((len(self.edits),), math.nan)
        return self.cycle.follow(self.edits, self.index + 1, scale=self._scale)

    def _move(self, latents: Tensor, output: Tensor) -> Tensor:
        share, after = self.schedule.shares[self.index : self.index + 2]
        return self.schedule.split(latents, output, share).at(after)

    @property
    def _guides_later(self) -> bool:
        return any(self.guides(index) for index in range(self.index + 1, self.steps))

    @property
    def _length(self) -> float:
        return step_length(self.index, self.steps, largest=self.config.step)

    @property
    def _time(self) -> float:
        return self.schedule.timesteps[self.index]

    @property
    def _scale(self) -> float:
        half = torch.float16 in (self.denoiser.network.dtype, self.decoder.dtype)
        return HALF_SCALE if half else 1.0

    def _own_state(self) -> dict:
        state = {"sources": self.sources, "edits": self.edits, "previous": self.previous}
        return {**state, "cycle": self.cycle.latents} if self.cycle else state

    def _take_state(self, state: dict) -> None:
        device = self.device
        self.sources, self.edits = state["sources"].to(device), state["edits"].to(device)
        self.previous = state["previous"] and [part.to(device) for part in state["previous"]]
        if self.cycle:
            self.cycle.latents = state["cycle"] if state["cycle"] is None else state["cycle"].to(device)


def oig_edit(
    pipeline,
    encoder,
    source: EditSource,
    targets: Sequence[str],
    *,
    config: OIGConfig | None = None,
    decoder=None,
    callback: Callable[[OIGEdit], None] | None = None,
) -> OIGResult:
    """Edit pictures so that they show what ``targets`` say, and keep their structure.

    Arguments and errors are those of :class:`OIGEdit`, which this runs to its end; ``callback`` is called
    with it after every step.

    Returns:
        The edited pictures, their sources, and the history of the losses.
    """
    run = OIGEdit(pipeline, encoder, source, targets, config=config, decoder=decoder)
    run.finish(callback)
    return OIGResult(run.pictures(), run.denoiser.pictures(run.sources), run.history, run.terms)


def _require_finite(gradient: Tensor, index: int) -> None:
    # on the meta device a step is counted and not computed
    if not gradient.is_meta and not bool(torch.isfinite(gradient).all()):
        raise FloatingPointError(
            f"the gradient at step {index} is not finite; load the model in bfloat16 or float32"
        )


def require_texts(captions: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """The targets, if there is one for each caption, or any number for one, and every edit has two texts.

    Raises:
        ValueError: If not, or if a text is empty or a target is its caption; the message says which.
    """
    S = len(captions)
    if isinstance(targets, str) or not targets or S not in (1, len(targets)):
        raise ValueError(
            f"targets must be one text for each of {S} sources, or any number for one, got {targets!r}"
        )
    for caption, target in zip(list(captions) * len(targets), targets):
        for name, said in (("source", caption), ("target", target)):
            if not said.strip():
                raise ValueError(f"{name} must be a text, got {said!r}")
        if target.strip() == caption.strip():
            raise ValueError(f"target must differ from its source, got {target!r} for both")
    return tuple(targets)
