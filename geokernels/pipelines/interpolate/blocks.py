"""Prompt interpolation as a block of diffusers' modular pipelines."""

from collections.abc import Sequence

import torch
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam
from torch import Tensor

from ...models.families import FAMILIES, Family
from ...models.text_to_image import CONTENT, Embedding, row_kinds
from .couplings import COUPLINGS, ROWS, prompt_path

PIPELINES = {
    "StableDiffusionXLModularPipeline": "StableDiffusionXLPipeline",
    "StableDiffusion3ModularPipeline": "StableDiffusion3Pipeline",
    "FluxModularPipeline": "FluxPipeline",
}
SAME = 1e-2  # of the largest number: what differs less is one negative prompt
EMBEDS = {
    "prompt_embeds": "Embeddings of the prompts on the way.",
    "pooled_prompt_embeds": "Their pooled vectors, on the arc between those of the prompts.",
    "negative_prompt_embeds": "That of the negative prompt, for each of them.",
    "negative_pooled_prompt_embeds": "Its pooled vector, for each of them.",
}


class PromptTransportStep(ModularPipelineBlocks):
    """Puts the prompts on the way between two or more in their place; it belongs behind the text encoder.

    A batch of K prompts goes in, one of ``frames`` embeddings comes out, in the modular pipelines of Stable
    Diffusion XL, Stable Diffusion 3 and FLUX, whose networks read a prompt's rows as a set. One generator
    gives all pictures the same noise; a list of them, or ``latents``, is taken as it is.

    Example:
        >>> step = PromptTransportStep()
        >>> [param.name for param in step.inputs][:4]
        ['prompt', 'frames', 'times', 'coupling']
    """

    @property
    def description(self) -> str:
        """What diffusers shows of it."""
        return (
            "Step that couples the rows of each prompt of the batch with those of the next by optimal "
            "transport, and moves them; place it between the text encoder and the step that prepares its "
            "embeddings for denoising."
        )

    @property
    def inputs(self) -> list[InputParam]:
        """Those of the couplings, and what the text encoder made."""
        given = {"type_hint": torch.Tensor}
        return [
            InputParam("prompt", type_hint=list[str], description="The prompts; needed for rows but 'all'."),
            InputParam("frames", type_hint=int, default=9, description="Pictures, both ends included."),
            InputParam(
                "times", type_hint=list[float], description="When, each in [0, 1]; instead of frames."
            ),
            InputParam("coupling", type_hint=str, default="ot", description=", ".join(COUPLINGS)),
            InputParam("rows", type_hint=str, default="all", description=", ".join(ROWS)),
            InputParam("eps", type_hint=float, default=0.05, description="Of the entropic coupling."),
            InputParam(
                "coupling_generator", type_hint=torch.Generator, description="Of the random coupling."
            ),
            InputParam("generator", description="One, for the same noise in all pictures; or one for each."),
            InputParam("latents", type_hint=torch.Tensor, description="Noise, where that is given."),
            InputParam("prompt_embeds", required=True, description="Of K prompts, (K, L, D).", **given),
            InputParam("pooled_prompt_embeds", description="(K, P).", **given),
            InputParam("negative_prompt_embeds", description="Of one negative prompt, K times.", **given),
            InputParam("negative_pooled_prompt_embeds", description="The same.", **given),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The embeddings on the way, under the names of those of the prompts."""
        return [
            OutputParam(
                name, type_hint=torch.Tensor, kwargs_type="denoiser_input_fields", description=description
            )
            for name, description in EMBEDS.items()
        ]

    @torch.no_grad()
    def __call__(self, components, state):
        """Move the prompts.

        Raises:
            TypeError: If the modular pipeline is of another kind.
            ValueError: If settings or prompts do not fit together.
        """
        given, family = self.get_block_state(state), _family_of(components)
        times = _times(given.times, given.frames)
        path = prompt_path(
            _keys(components, family, given),
            coupling=given.coupling,
            rows=given.rows,
            eps=given.eps,
            generator=given.coupling_generator,
        )
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
            setattr(given, name, _alike(name, getattr(given, name), len(times)))
        rows, pooled = zip(*(path.at(time) for time in times))
        given.prompt_embeds = torch.stack(rows)
        given.pooled_prompt_embeds = None if path.pooled is None else torch.stack(pooled)
        if given.latents is None:
            given.generator = _same_noise(given.generator, len(times))
        self.set_block_state(state, given)
        return components, state


def _family_of(components) -> Family:
    for kind in type(components).__mro__:
        if kind.__name__ in PIPELINES:
            return FAMILIES[PIPELINES[kind.__name__]]
    raise TypeError(
        f"prompts can be moved in one of {', '.join(PIPELINES)}, got {type(components).__name__}: "
        "of others it is not known whether they read a prompt's rows as a set"
    )


def _times(times: Sequence[float] | None, frames: int) -> list[float]:
    if times is None:
        if frames < 2:
            raise ValueError(f"frames must be at least 2, got {frames}")
        return torch.linspace(0, 1, frames, dtype=torch.float64).tolist()
    for time in times:
        if not 0 <= time <= 1:
            raise ValueError(f"times must lie in [0, 1], got {time}")
    if not len(times):
        raise ValueError("times must be at least one, got none")
    return [float(time) for time in times]


def _keys(components, family: Family, given) -> list[Embedding]:
    embeds, pooled = given.prompt_embeds, given.pooled_prompt_embeds
    K, L, _ = embeds.shape
    if given.rows == "all":
        kinds = [torch.full((L,), CONTENT)] * K  # any row may go anywhere, whatever it stands for
    else:
        prompts = [given.prompt] if isinstance(given.prompt, str) else given.prompt
        if prompts is None or len(prompts) != K:
            raise ValueError(
                f"prompt must be the {K} texts of prompt_embeds for rows {given.rows!r}, got {prompts!r}"
            )
        kinds = [row_kinds(components, family, prompt, L) for prompt in prompts]
    vectors = [None] * K if pooled is None else pooled
    return [Embedding(*key) for key in zip(embeds, kinds, vectors)]


def _alike(name: str, embeds: Tensor | None, frames: int) -> Tensor | None:
    """The one that all of a batch are, for every picture."""
    if embeds is None:
        return None
    # the rows of a batch are encoded with other roundings
    if not bool((embeds - embeds[:1]).abs().max() <= SAME * embeds.abs().max()):
        raise ValueError(
            f"{name} must be of one negative prompt for all pictures, got {len(embeds)} that differ"
        )
    return embeds[:1].expand(frames, *embeds.shape[1:])


def _same_noise(generator, frames: int) -> list[torch.Generator]:
    """For every picture a source of the same random numbers."""
    if isinstance(generator, list):
        if len(generator) != frames:
            raise ValueError(f"generator must be one, or one for each of {frames}, got {len(generator)}")
        return generator
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    return [generator.clone_state() for _ in range(frames)]
