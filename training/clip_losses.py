"""The towers in training, and what is asked of their features."""

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from torch import Tensor

from .clip_data import UNSAID, VALUES


def encode_pictures(model: CLIP, pictures: Tensor) -> Tensor:
    """Features, not normalised, of pictures in [0, 1]."""
    return model.visual(_normalised(pictures))


def encode_patches(model: CLIP, pictures: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """The same features, and what a vision transformer holds after ``layer``, ``(B, width, h, w)``."""
    outputs = model.visual.forward_intermediates(_normalised(pictures), indices=[layer - 1])
    return outputs["image_features"], outputs["image_intermediates"][0]


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """Unit text features of compact ``tokens`` (B, L); equal to open_clip's at full length, being causal."""
    L = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:L]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:L, :L]))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection, dim=-1)


def contrastive_loss(logits: Tensor, values: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy in both directions, where every caption that is true of a picture is a right answer.

    Args:
        logits: Picture by caption, ``(B, C)``.
        values: What the pictures show, ``(B, 5)``.
        said: What the captions say, ``(C, 5)``, ``UNSAID`` where silent.
    """
    true = ((values[:, None] == said) | (said == UNSAID)).all(-1).float()
    picture = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
    seen = true.sum(0)
    text = -(true / seen.clamp(min=1) * logits.log_softmax(0)).sum(0)
    return (picture.mean() + (text * (seen > 0)).sum() / (seen > 0).sum()) / 2


def counterfactual_loss(scale: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """Which caption of a pair is true of which picture: two-way cross-entropy. Both ``(2, n, dim)``, unit."""
    logits = scale * torch.einsum("pnd,qnd->npq", image, text)
    right = torch.arange(2).expand(logits.shape[0], 2)
    return F.cross_entropy(logits.flatten(0, 1), right.flatten())


def directional_loss(image: Tensor, text: Tensor) -> Tensor:
    """1 - cosine between the pictures' and the captions' difference. Both ``(2, n, dim)``, unit."""
    return 1 - F.cosine_similarity(image[1] - image[0], text[1] - text[0], dim=-1).mean()


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of each pixel: ``logits`` (B, side**2, h, w) of patches, ``masks`` (B, 1, H, W)."""
    side = masks.shape[-1] // logits.shape[-1]
    return F.binary_cross_entropy_with_logits(F.pixel_shuffle(logits, side), masks.clamp(0, 1))


def reading_loss(logits: Tensor, values: Tensor) -> Tensor:
    """Cross-entropy of each attribute, summed: ``logits`` (B, 29) of every value, ``values`` (B, 5)."""
    return sum(F.cross_entropy(part, v) for part, v in zip(logits.split(VALUES, 1), values.unbind(1)))


def _normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pictures - mean) / std
