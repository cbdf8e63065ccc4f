"""What a CLIP that guided nothing says of an edit, beside the judge.

It is the embedded ``world-evaluation`` model: another architecture, seed and text tower than the CLIP that
guides, and one that refuses every gradient. It decides nothing and selects nothing. Where it and the judge
disagree, believe the judge: it has rules where this has habits.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geokernels.models.clip import EVALUATION, load_clip
from geokernels.world import ATTRIBUTES, TEMPLATES
from training.evaluate_clip import answers


class Opinion(NamedTuple):
    """What the evaluation CLIP says of one edit, and of a render of what was asked for."""

    named: str  # its zero-shot answer for the asked attribute
    named_of_truth: str
    direction: float  # cosine between the change of the picture and that of the caption
    direction_of_truth: float


class Witness:
    """The evaluation CLIP, ready to be asked."""

    def __init__(self) -> None:
        self.encoder = load_clip(EVALUATION)
        self.answers = {attribute: answers(self.encoder, attribute) for attribute in ATTRIBUTES}

    @torch.no_grad()
    def __call__(
        self, source: Tensor, picture: Tensor, truth: Tensor, texts: tuple[str, str], attribute: str
    ) -> Opinion:
        """Ask about one edit.

        Args:
            source: The picture before, ``(3, H, W)`` in [0, 1].
            picture: The picture after, like ``source``.
            truth: A render of what was asked for, like ``source``.
            texts: Captions of what was and of what was asked for.
            attribute: The one that was asked to change.
        """
        start, *after = self.encoder.encode_image(torch.stack([source, picture, truth]))
        before, asked = self.encoder.encode_text(texts, TEMPLATES).mean(1)
        named = (ATTRIBUTES[attribute][int((self.answers[attribute] @ x).argmax())] for x in after)
        cosines = (F.cosine_similarity(x - start, asked - before, dim=0).item() for x in after)
        return Opinion(*named, *(round(c, 4) for c in cosines))
