"""Transport between clouds whose rows are spread over the ranks of a ``torch.distributed`` group."""

from .ranks import RankError
from .result import ShardedTransport
from .transport import sinkhorn, sinkhorn_divergence

__all__ = ["RankError", "ShardedTransport", "sinkhorn", "sinkhorn_divergence"]
