"""The conventions by which published evaluations of editing differ, as settings with a fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from .._checks import require_choice, require_positive, settle

FEATURES, TOKENS = "features", "tokens"  # of the CLIP that measures, where there are no weights for others
DINO = ("dino_vitb8", "dino_vits8", "dino_vitb16", "dino_vits16")
BLOCKS = 12  # of each of them
CHOICES = {
    "brackets": ("stripped", "kept"),
    "resample": ("bicubic", "bilinear"),
    "mask_fit": ("any", "nearest"),
    "fill": ("black", "grey", "source"),
    "counted": ("all", "outside"),
    "whole_masks": ("skipped", "counted"),
    "ssim": ("gaussian", "uniform"),
    "perceptual": ("squeeze", "alex", "vgg", FEATURES),
    "structure": (*DINO, TOKENS),
}


@dataclass(frozen=True)
class Conventions:
    """How edits are measured.

    The defaults are those of PIE-Bench's own evaluation, as its authors' code has them ("PnP Inversion", Ju
    et al., ICLR 2024; github.com/cure-lab/PnPInversion: ``evaluation/`` and ``run_editing_*.py``), the
    accidental ones too: papers that report its columns ran that code.

    Attributes:
        brackets: Whether the brackets that mark the difference of two prompts are ``"stripped"`` before
            anybody reads them, or ``"kept"``.
        jpeg: Quality of the JPEG file that edited pictures go through before they are measured, as they are
            saved under the names of the given ones; None for the pictures of 8 bits themselves.
        compare_size: Longest side at which pictures are compared; None for that at which they were edited.
        resample: How they are brought to it, with antialiasing; published pictures have it already.
        mask_fit: A pixel is inside of a mask that has more pixels if ``"any"`` part of it is, or the
            ``"nearest"``.
        border: Whether the outermost pixels of the mask are inside.
        fill: What both pictures show inside when they are compared outside: ``"black"``, ``"grey"``, or the
            ``"source"``'s pixels.
        counted: Whether PSNR, SSIM and MSE are means over ``"all"`` pixels, the filled ones among them, or
            over those ``"outside"``.
        whole_masks: Whether an edit whose mask covers everything, or nothing, is ``"skipped"`` in the
            columns that have nothing left to look at, or ``"counted"`` as two pictures of fill.
        clip: Name of the CLIP that measures.
        ssim: A ``"gaussian"`` window of 11 pixels, or a ``"uniform"`` one of 7.
        perceptual: LPIPS' network, or ``"features"`` of the CLIP that measures.
        structure: The network of DINO whose keys are compared, or ``"tokens"`` of the CLIP that measures.
        structure_layer: DINO's block, from 0.
        structure_size: Side of the square that DINO sees.
        structure_scale: What pictures in [0, 1] are multiplied by before DINO's normalisation. The published
            code forgets to divide bytes by 255; 1 is what DINO was trained on.
        structure_antialias: Whether pictures are smoothed on the way to DINO's size, as by torchvision from
            0.17 on.
        structure_class_token: Whether the class token's key is compared with the others.

    Raises:
        ValueError: For a word or number that is none of these.
    """

    brackets: str = "stripped"
    jpeg: int | None = 75
    compare_size: int | None = 512
    resample: str = "bicubic"
    mask_fit: str = "any"
    border: bool = True
    fill: str = "black"
    counted: str = "all"
    whole_masks: str = "skipped"
    clip: str = "ViT-L-14/openai"
    ssim: str = "gaussian"
    perceptual: str = "squeeze"
    structure: str = "dino_vitb8"
    structure_layer: int = BLOCKS - 1
    structure_size: int = 224
    structure_scale: float = 255.0
    structure_antialias: bool = False
    structure_class_token: bool = True

    def __post_init__(self):
        settle(self)
        for name, choices in CHOICES.items():
            require_choice(name, getattr(self, name), choices)
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f"jpeg must lie between 1 and 100, or be none, got {self.jpeg}")
        if self.compare_size is not None and self.compare_size < 16:
            raise ValueError(f"compare_size must be at least 16, or none, got {self.compare_size}")
        require_positive("structure_scale", self.structure_scale)
        # 255 and 255.0 are one number, and one fingerprint
        object.__setattr__(self, "structure_scale", float(self.structure_scale))
        if not 0 <= self.structure_layer < BLOCKS:
            raise ValueError(
                f"structure_layer must lie between 0 and {BLOCKS - 1}, got {self.structure_layer}"
            )
        if self.structure in DINO:
            patch = int(self.structure.partition("vit")[2][1:])
            if self.structure_size < patch or self.structure_size % patch:
                raise ValueError(
                    f"structure_size must be a multiple of {patch}, the patches of {self.structure}, "
                    f"got {self.structure_size}"
                )

    @property
    def fingerprint(self) -> str:
        """Twelve digits: the same for the same conventions, and for no others."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def departures(self) -> dict[str, object]:
        """Those that are not the published ones."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def said(self) -> str:
        """The fingerprint and the departures, in one sentence."""
        listed = ", ".join(f"{name}={_typed(value)}" for name, value in self.departures.items())
        but = f" but for {listed}" if listed else ""
        return f"Conventions {self.fingerprint}: those of PIE-Bench{but}."

    def record(self) -> dict:
        """What ``run.json`` says beside the settings."""
        return {"fingerprint": self.fingerprint, "departures": list(self.departures)}


# of rendered pictures, whose masks are exact, whose edits are no files of a camera, and which have 64 pixels
WORLD = {"border": False, "jpeg": None, "compare_size": None}


def _typed(value: object) -> str:
    """A value as ``--set`` takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
