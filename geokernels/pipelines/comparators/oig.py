"""OIG among the methods it is compared with."""

from torch import Tensor

from ..edit.oig import OIGConfig, oig_edit
from .task import EditModels, EditTask


def oig(models: EditModels, task: EditTask, config: OIGConfig) -> Tensor:
    """Edit by :func:`geokernels.pipelines.oig_edit`."""
    if models.encoder is None:
        raise ValueError("OIG needs a CLIP that guides it, got none")
    return oig_edit(
        models.pipeline, models.encoder, task.source, task.targets, config=config, decoder=models.decoder
    ).pictures
