"""vmap for compiled operators: the mapped dimension becomes the first of the batch."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def lead_with_mapped_dimension(operator: str) -> None:
    """Let ``torch.vmap`` put its dimension before the batch dimensions of ``geokernels::operator``.

    What is not mapped is repeated. An output that a call left out, empty and of one dimension, stays so.
    """
    run = getattr(torch.ops.geokernels, operator)

    def rule(info, in_dims: tuple, *args):
        moved = []
        for x, dim in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)
                x = x.contiguous()
            moved.append(x)
        found = run(*moved)
        return found, tree_map(lambda part: None if part.dim() == 1 and part.numel() == 0 else 0, found)

    torch.library.register_vmap(f"geokernels::{operator}", rule)
