"""vmap for compiled operators: the mapped dimension becomes the first of the batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._ops import full_name, ops


def leading_rule(run: Callable) -> Callable:
    """The rule of an operator that ``run`` calls: it puts the mapped dimension before the batch dimensions.

    What is not mapped is repeated. An output that a call left out, empty and of one dimension, stays so.
    """

    def dim_of(part: Tensor) -> int | None:
        return None if part.dim() == 1 and part.numel() == 0 else 0

    def rule(info, in_dims: tuple, *args):
        moved = []
        for x, dim in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)
                x = x.contiguous()
            moved.append(x)
        outputs = run(*moved)
        several = isinstance(outputs, (tuple, list))
        return outputs, tuple(map(dim_of, outputs)) if several else dim_of(outputs)

    return rule


def lead_with_mapped_dimension(operator: str) -> None:
    """Let ``torch.vmap`` put its dimension before the batch dimensions of ``geokernels::operator``."""
    run = getattr(ops, operator)
    torch.library.register_vmap(full_name(operator), leading_rule(run))
