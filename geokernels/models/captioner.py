"""What a picture shows, in words: BLIP, through transformers."""

from pathlib import Path

import torch
from torch import Tensor

from .._checks import reason_of
from .._modes import own_modes
from .pipeline_files import read_whole, require_finite_parts

WORDS = 40  # most tokens of a caption


class Captioner:
    """A frozen BLIP that captions pictures; nothing in it is random."""

    def __init__(self, name: str, model, processor):
        self.name, self.model, self.processor = name, model.requires_grad_(False).eval(), processor

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> list[str]:
        """A caption each of ``(B, 3, H, W)`` in [0, 1].

        Raises:
            ValueError: If nothing comes to the model's mind.
        """
        seen = self.processor.image_processor(
            images=list(pictures.float().cpu()), do_rescale=False, return_tensors="pt"
        )
        pixels = seen["pixel_values"].to(self.model.device, self.model.dtype)
        tokens = self.model.generate(pixel_values=pixels, max_new_tokens=WORDS, do_sample=False)
        captions = [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        if not all(captions):
            raise ValueError(f"{self.name} has no words for a picture; say yourself what it shows")
        return captions


@own_modes
def load_captioner(name: str | Path, *, device: str | torch.device = "cpu") -> Captioner:
    """Load a BLIP that was trained to caption, of safetensors alone.

    Args:
        name: A folder in transformers' format, or ``"organisation/model"`` of the hub, such as
            ``"Salesforce/blip-image-captioning-base"``.
        device: Where to.

    Raises:
        ImportError: If transformers is not installed.
        ValueError: If there is no such model, or it is of another kind.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'captioning needs transformers: pip install "geokernels[morph,diffusion]"'
        ) from error
    options = {"local_files_only": Path(name).is_dir()}
    try:
        config = transformers.AutoConfig.from_pretrained(str(name), **options)
        if config.model_type != "blip":
            raise ValueError(f"it is a {config.model_type}")
        model = read_whole(transformers.BlipForConditionalGeneration, name, use_safetensors=True, **options)
        require_finite_parts({"": model}, name)
        processor = transformers.BlipProcessor.from_pretrained(str(name), **options)
    except Exception as error:
        raise ValueError(
            f"a captioner must be a whole BLIP saved as safetensors, {name} is not ({reason_of(error)})"
        ) from error
    return Captioner(Path(name).name, model.to(device), processor)
