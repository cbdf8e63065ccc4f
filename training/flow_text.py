"""What a transformer of Stable Diffusion 3 is given of a caption; rows that are alike are counted once.

Its pipeline hands over the 77 rows of the towers and, in the place of T5, 256 rows of zeros. In attention, n
equal keys are one key with ln n added to its score, so the zeros are one row here, exactly; and the rows that
lie beyond the longest caption, which are padding alone and almost equal, are stood for by one of them, drawn
anew for every caption.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import CLIPTokenizer

from .diffusion_data import CONTEXT, tokenize
from .text import longest_caption

ZEROS = 256  # rows in the place of T5's, as the pipeline has them unless max_sequence_length says otherwise


class Words(NamedTuple):
    """What is given of some captions: rows (B, T, D), how often each counts (B, T), and the pooled (B, P)."""

    rows: Tensor
    counts: Tensor
    pooled: Tensor


class Captions:
    """From prompts to :class:`Words`."""

    def __init__(self, tokenizer: CLIPTokenizer, towers: list, *, width: int) -> None:
        self.tokenizer, self.towers, self.width = tokenizer, towers, width
        self.longest = longest_caption(tokenizer)

    @torch.no_grad()
    def __call__(self, prompts: list[str], *, unpadded: float, generator: torch.Generator) -> Words:
        """Read ``prompts``; a share ``unpadded`` of them goes without zeros in T5's place."""
        n, tokens = len(prompts), tokenize(self.tokenizer, prompts)
        outputs = [tower(tokens, output_hidden_states=True) for tower in self.towers]
        rows = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        rows = F.pad(rows, (0, self.width - rows.shape[-1]))
        one = torch.randint(self.longest, CONTEXT, (n,), generator=generator)
        padding = rows[torch.arange(n), one][:, None]
        counts = torch.ones(n, self.longest + 2)
        counts[:, -2] = CONTEXT - self.longest
        counts[:, -1] = ZEROS * (torch.rand(n, generator=generator) >= unpadded)
        rows = torch.cat([rows[:, : self.longest], padding, torch.zeros_like(padding)], 1)
        return Words(rows, counts, torch.cat([output.text_embeds for output in outputs], -1))


class Counted(TorchFunctionMode):
    """Attention, in float32, of a picture and a caption in which a text row counts as often as it is told.

    Args:
        counts: Of the text rows, which follow the patches, ``(B, T)``; 0 for a row that is not there.
        patches: Of the picture.
    """

    def __init__(self, counts: Tensor, *, patches: int) -> None:
        super().__init__()
        self.scores = F.pad(counts.log(), (patches, 0))[:, None, None]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        kwargs |= dict(zip(("query", "key", "value"), args)) | {"attn_mask": self.scores}
        # torch's attention in bfloat16 is the slower one on a CPU
        with torch.autocast("cpu", enabled=False):
            return func(**{k: v.float() if isinstance(v, Tensor) else v for k, v in kwargs.items()})
