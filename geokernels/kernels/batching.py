"""vmap for compiled operators: the mapped dimension becomes one of the batch."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def fold_mapped_dimension(operator: str) -> None:
    """Let ``torch.vmap`` fold its dimension into the one batch dimension of ``geokernels::operator``.

    What is not mapped is repeated. An output that a call left out, empty and of one dimension, stays so.
    """
    run = getattr(torch.ops.geokernels, operator)

    def rule(info, in_dims: tuple, *args):
        V = info.batch_size
        folded = []
        for x, dim in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = x.expand(V, *x.shape) if dim is None else x.movedim(dim, 0)
                x = x.reshape(-1, *x.shape[2:]).contiguous()
            folded.append(x)
        found = run(*folded)
        parts = found if isinstance(found, tuple) else (found,)
        parts = tuple(part if part.dim() == 1 else part.unflatten(0, (V, -1)) for part in parts)
        dims = tuple(None if part.dim() == 1 else 0 for part in parts)
        return (parts, dims) if isinstance(found, tuple) else (parts[0], dims[0])

    torch.library.register_vmap(f"geokernels::{operator}", rule)


def lead_with_mapped_dimension(operator: str) -> None:
    """The same for a ``geokernels::operator`` whose tensors have any number of batch dimensions."""
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
