"""The diffusion models of a command, as its options name them."""

from __future__ import annotations

import sys
from pathlib import Path

from .kept import kept

LEAST_STEPS = 3  # of an inversion
PRECISIONS = ("float32", "bfloat16", "float16")


def require_sources(**named: str | None) -> None:
    """Refuse names of models that stand for nothing, by their options, before any model is read."""
    from ..models.pipeline_files import PipelineCalled, source_of

    for name, model in named.items():
        if model is not None:
            source_of(model, PipelineCalled(f"--{name}"))


def is_built_in(model: str) -> bool:
    """Whether ``--model`` names a pipeline that the package has."""
    from ..models.pipeline_files import EMBEDDED

    return model in EMBEDDED


def is_flow(model: str) -> bool | None:
    """Whether ``--model`` names a rectified flow; None for a single file, which has to be read to say so."""
    from ..models.diffusion import pipeline_class
    from ..models.flow import FlowModel
    from ..models.pipeline_files import PipelineCalled, source_of

    kind = pipeline_class(source_of(model, PipelineCalled("--model")))
    return None if kind is None else kind in FlowModel.kinds


def require_solver(solver: str | None, flow: bool | None) -> None:
    """Refuse a solver that there is not, or for a U-Net."""
    from .._checks import require_choice
    from ..pipelines.edit.flow_solvers import SOLVERS

    if solver is not None:
        require_choice("--solver", solver, SOLVERS)
        if flow is False:
            raise ValueError(f"--solver goes with Stable Diffusion 3 and FLUX, got {solver} with a U-Net")


def require_captioner(name: str | None) -> None:
    """Refuse a captioner that is no folder, and no name of the hub's."""
    from ..models.pipeline_files import HUB

    if name is not None and not Path(name).is_dir() and not HUB.fullmatch(name):
        raise ValueError(
            f"--captioner must be an existing folder or organisation/model of the hub, got {name!r}"
        )


def require_invertible(steps: int) -> None:
    """Refuse so few steps that an inversion, which leaves one out at either end, has none."""
    if steps < LEAST_STEPS:
        raise ValueError(f"--steps must be at least {LEAST_STEPS} to invert a picture, got {steps}")


def pipeline_of(model: str, variant: str | None, config: Path | None, precision, device: str):
    """The pipeline that ``--model`` names, with ``--variant`` and ``--model-config``."""
    from ..models import load_text_to_image
    from ..models.pipeline_files import PipelineCalled, without_bars

    called = PipelineCalled("--model", "--variant", "--model-config")
    how = {"variant": variant, "config": config, "called": called}
    with without_bars(where=not sys.stderr.isatty()):  # of which a log would have every state
        return kept(load_text_to_image, model, dtype=precision, device=device, **how)


def decoder_of(decoder: str, precision, device: str):
    """The tiny autoencoder that ``--decoder`` names."""
    from ..models import load_tiny_autoencoder
    from ..models.pipeline_files import PipelineCalled

    how = {"dtype": precision, "device": device, "called": PipelineCalled("--decoder")}
    return kept(load_tiny_autoencoder, decoder, **how)


def instructed_of(instruct: str, precision, device: str):
    """The pipeline that ``--instruct`` names."""
    from ..models.diffusion import load_instructed
    from ..models.pipeline_files import PipelineCalled, without_bars

    with without_bars(where=not sys.stderr.isatty()):
        how = {"dtype": precision, "device": device, "called": PipelineCalled("--instruct")}
        return kept(load_instructed, instruct, **how)


def precision_of(dtype: str):
    """The dtype that ``--dtype`` names."""
    import torch

    if dtype not in PRECISIONS:
        raise ValueError(f"--dtype must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {dtype!r}")
    return getattr(torch, dtype)


def models_of(
    model: str, decoder: str | None, dtype: str, device: str, *, variant: str | None, config: Path | None
):
    """The pipeline, and the tiny autoencoder if one is asked for."""
    import torch

    precision = precision_of(dtype)
    pipeline = pipeline_of(model, variant, config, precision, device)
    if dtype == "float16" and "XL" in type(pipeline).__name__ and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # its activations are beyond float16
    tiny = None if decoder is None else decoder_of(decoder, precision, device)
    return pipeline, tiny
