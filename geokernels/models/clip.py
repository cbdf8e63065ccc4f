"""CLIP models of open_clip behind one face: tensors in, unit features out, gradients to the picture."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import require_float, require_shades
from .._modes import own_modes
from .clip_sources import ARGUMENTS, EMBEDDED, EVALUATION, Called, find_clip, import_open_clip, tokenizer_of
from .clip_weights import build_clip


class ClipEncoder(nn.Module):
    """A frozen CLIP, differentiable in the picture alone.

    The weights need no gradient and the module never leaves evaluation mode. Features are float32 unit rows.
    One that is there to evaluate refuses pictures that require a gradient, so that it cannot guide by mistake
    what it is to judge.

    Attributes:
        name: What was loaded.
        guides: Whether gradients may pass.
        embedded: Whether it is one that the package carries.
        image_size: Side of the square picture that the model sees.
        dim: Length of a feature.
        model: open_clip's module.
    """

    def __init__(
        self, name: str, model: nn.Module, tokenizer, *, guides: bool = True, embedded: bool = False
    ) -> None:
        super().__init__()
        self.name, self.guides, self.embedded = name, guides, embedded
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        wanted = model.visual.preprocess_cfg
        sides = wanted["size"] if isinstance(wanted["size"], (tuple, list)) else (wanted["size"],) * 2
        if sides[0] != sides[1] or wanted["resize_mode"] not in ("shortest", "squash"):
            raise ValueError(
                f"model {name!r} must see square pictures resized by 'shortest' or 'squash', "
                f"got {tuple(sides)} by {wanted['resize_mode']!r}"
            )
        self.image_size = int(sides[0])
        self._interpolation = "bilinear" if wanted["interpolation"] == "bilinear" else "bicubic"
        self._squash = wanted["resize_mode"] == "squash"
        self.register_buffer(
            "_mean", torch.tensor(wanted["mean"], dtype=torch.float32).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "_std", torch.tensor(wanted["std"], dtype=torch.float32).view(3, 1, 1), persistent=False
        )
        self._texts: dict[tuple[str, str], Tensor] = {}
        self.train(False)
        with torch.no_grad():
            self.dim = self.encode_image(
                torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.float32)
            ).shape[1]

    def train(self, mode: bool = True) -> "ClipEncoder":
        """Stay in evaluation mode, whatever is asked: batch statistics must not move."""
        return super().train(False)

    def preprocess(self, pictures: Tensor, *, fit: bool = True, clamp: bool = True) -> Tensor:
        """Resize, crop the centre and normalise as the model was trained, differentiably.

        Args:
            pictures: ``(B, 3, H, W)`` floating point in [0, 1], of any size.
            fit: Whether to resize and crop, rather than to normalise alone.
            clamp: Whether what resizing makes of them is cut off at black and white, as in a file.

        Returns:
            ``(B, 3, image_size, image_size)`` float32. What already has this size is not resampled.

        Raises:
            ValueError: If the shape is another, values are far outside of [0, 1], or a gradient is asked of a
                model that only evaluates.
            TypeError: If the dtype is not floating point.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
            raise ValueError(f"pictures must have shape (B, 3, H, W), got {tuple(pictures.shape)}")
        require_float("pictures", pictures)
        # noise, generators and decoders go beyond, but not as far as bytes do
        require_shades("pictures", pictures, slack=7.0)
        if not self.guides and pictures.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"pictures must not require a gradient of {self.name!r}, which evaluates what others guided, "
                "got some that do; guide by load_clip('world'), or evaluate under torch.no_grad()"
            )
        pictures, side = pictures.float(), self.image_size
        if not fit:
            return (pictures - self._mean) / self._std
        H, W = pictures.shape[2:]
        short = min(H, W)
        # integer arithmetic, as torchvision rounds the long side
        size = (side, side) if self._squash else (side * H // short, side * W // short)
        if size != (H, W):
            pictures = F.interpolate(
                pictures, size, mode=self._interpolation, antialias=True, align_corners=False
            )
            if clamp:  # bicubic overshoots
                pictures = pictures.clamp(0, 1)
        top, left = round((size[0] - side) / 2), round((size[1] - side) / 2)
        return (pictures[:, :, top : top + side, left : left + side] - self._mean) / self._std

    def encode_image(self, pictures: Tensor, *, clamp: bool = True) -> Tensor:
        """Unit features ``(B, dim)``, float32, of ``pictures`` as :meth:`preprocess` takes them.

        Gradients:
            First and second order, to ``pictures``; refused where the model does not guide.
        """
        return F.normalize(self.model.encode_image(self.preprocess(pictures, clamp=clamp)).float(), dim=-1)

    def image_features(self, pictures: Tensor, *, clamp: bool = True) -> list[Tensor]:
        """What the image tower computes on the way: one ``(B, C, h, w)`` a ResNet stage or ViT block."""
        seen = self.preprocess(pictures, clamp=clamp)
        maps = self.model.visual.forward_intermediates(seen, intermediates_only=True)
        return [features.float() for features in maps["image_intermediates"]]

    def encode_image_and_tokens(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`encode_image` gives, and the tokens on the way to it, in one pass.

        Args:
            pictures: As :meth:`preprocess` takes them.

        Returns:
            Unit features ``(B, dim)``, and ``(B, N, C)``, one token a place, as they are before a ViT's last
            block (the class token left out), or a ResNet's last stage; both float32.

        Gradients:
            First and second order, to ``pictures``; refused where the model does not guide.
        """
        passed = self.model.visual.forward_intermediates(self.preprocess(pictures), indices=2)
        features = F.normalize(passed["image_features"].float(), dim=-1)
        return features, passed["image_intermediates"][0].float().flatten(2).mT

    @own_modes
    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Unit features, ``(len(prompts), len(templates), dim)``, of every prompt in every template; cached.

        Args:
            prompts: What the templates are filled with.
            templates: Sentences with one ``{}`` each.

        Raises:
            ValueError: If a template has no ``{}``, or a filled one is longer than the model can read.
        """
        if isinstance(prompts, str) or isinstance(templates, str):
            raise TypeError("prompts and templates must be sequences of strings, got a single string")
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"template must contain {{}} once, got {template!r}")
        keys = [(prompt, template) for prompt in prompts for template in templates]
        missing = list(dict.fromkeys(key for key in keys if key not in self._texts))
        device = self._mean.device
        if missing:
            tokens = self.tokenize([template.format(prompt) for prompt, template in missing])
            features = F.normalize(self.model.encode_text(tokens.to(device)).float(), dim=-1)
            self._texts.update(zip(missing, features))
        if not keys:
            return torch.empty(len(prompts), len(templates), self.dim, device=device, dtype=torch.float32)
        rows = torch.stack([self._texts[key].to(device) for key in keys])
        return rows.view(len(prompts), len(templates), self.dim)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of ``prompt`` with a token that the model never met in training.

        A model that was trained on few words says so by zero rows in its token table; most models have none
        and know every word.
        """
        table = getattr(getattr(self.model, "token_embedding", None), "weight", None)
        if table is None or not hasattr(self.tokenizer, "encode"):
            return []
        return [
            word
            for word in dict.fromkeys(re.findall(r"[^\W_]+", prompt.lower()))
            if not table[self.tokenizer.encode(word)].any(-1).all()
        ]

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens of ``texts``, a row each; refuses those that are longer than the model can read."""
        context = getattr(self.tokenizer, "context_length", None) or 77
        for text in texts:
            if hasattr(self.tokenizer, "encode"):
                length = len(self.tokenizer.encode(text)) + 2  # with start and end
            else:
                length = len(self.tokenizer.tokenizer(text).input_ids)
            if length > context:
                raise ValueError(f"prompt must have at most {context} tokens, got {length}: {text[:60]!r}...")
        return self.tokenizer(texts)


@own_modes
def load_clip(
    name: str = "world",
    weights: str | Path | None = None,
    *,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "cpu",
    called: Called = ARGUMENTS,
) -> ClipEncoder:
    """Load a CLIP by name and file.

    Args:
        name: ``"world"`` for the embedded model; ``"world-evaluation"`` for the other embedded one, which
            shares nothing with it and never guides; an open_clip architecture, such as ``"ViT-B-32"``, whose
            ``weights`` are a file; that and a tag, such as ``"ViT-B-32/laion2b_s34b_b79k"``, which downloads
            them unless there is a file; ``"hf-hub:organisation/model"``, which downloads; or
            ``"local-dir:FOLDER"``, a folder with ``open_clip_config.json`` and weights.
        weights: A file of safetensors, or of ``torch.save`` that holds tensors alone; OpenAI's TorchScript
            archives, whose tensors are read and whose code is not; or transformers' weights of a CLIP with
            their ``config.json`` beside them. OpenAI's weights choose the quick GELU by themselves where they
            carry their sizes; where nothing says with which activation a file was trained, a warning names
            ``"ViT-B-32-quickgelu"``. For an embedded model, None is the packaged file; another one needs its
            ``.json`` beside it.
        tokenizer: Folder of the tokenizer, for models whose tokenizer comes from the hub (SigLIP, RoBERTa);
            it also holds the ``config.json`` of a text tower that is transformers'.
        device: Where to.
        called: What messages call ``name``, ``weights`` and ``tokenizer``.

    Returns:
        The model, frozen. Its name is ``name``, or that of the architecture with the quick GELU which the
        weights of a bare architecture turned out to need.

    Raises:
        ImportError: If open_clip is not installed.
        FileNotFoundError: If there is no such weights file.
        OSError: If weights are to be fetched and cannot be; the message says from where.
        ValueError: If the name is unknown, or the file is corrupt, of another format or another architecture,
            not finite, was trained with another activation than its tag or name says, or the packaged file
            is not the one that was measured.

    Warns:
        UserWarning: If the file does not say whether it was trained with the quick GELU, where open_clip has
            the architecture in both forms and the one without was named.

    Example:
        >>> encoder = load_clip()
        >>> encoder.encode_text(["a red circle", "a blue circle"]).shape
        torch.Size([2, 1, 128])
    """
    import_open_clip()
    source = find_clip(name, weights, tokenizer, called)
    reader = tokenizer_of(source, called)  # first: it is quickly known to be missing
    how = {"guides": name != EVALUATION, "embedded": name in EMBEDDED and weights is None}
    name, model = build_clip(source, called)
    return ClipEncoder(name, model, reader, **how).to(device)
