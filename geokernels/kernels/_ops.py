"""The namespace of the operators, which nothing else names: the outermost package that this one lies in.

The compiled libraries follow the same rule (``csrc/host/operators.h``). So a copy of these files under
another name, as Hugging Face's ``kernels`` loads one, has operators of its own.
"""

import torch

NAMESPACE = __name__.partition(".")[0]
ops = getattr(torch.ops, NAMESPACE)


def full_name(operator: str) -> str:
    """The name by which torch registers ``operator``, such as ``geokernels::sinkhorn``."""
    return f"{NAMESPACE}::{operator}"
