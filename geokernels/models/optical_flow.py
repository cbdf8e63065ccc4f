"""Optical flow between two frames: OpenCV's DIS, or torchvision's RAFT where its weights are at hand."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from .._modes import own_modes
from .tensor_files import fill, read_state

RAFT = ("raft_small", "raft_large")
LEAST = 128  # pixels a side that RAFT needs
MULTIPLE = 8  # of its sides

# From two frames (H, W, 3) uint8 to how far each pixel of the first moves, (H, W, 2) float32, right and down.
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


@own_modes
def load_flow(name: str = "dis", *, device: str | torch.device = "cpu") -> Flow:
    """Load an estimator of optical flow.

    Args:
        name: ``"dis"``, or ``"raft_small=FILE"`` or ``"raft_large=FILE"`` with a state dict of torchvision's.
        device: Where RAFT runs; DIS runs on the CPU.

    Returns:
        A function of two pictures that returns the flow from the first to the second.

    Raises:
        ImportError: If OpenCV or torchvision is not installed.
        FileNotFoundError: If there is no such file of weights.
        ValueError: If there is no such estimator, or the weights are damaged or do not fit.
    """
    kind, _, weights = name.partition("=")
    if kind == "dis" and not weights:
        return _dis()
    if kind in RAFT and weights:
        return _raft(kind, Path(weights), device)
    raise ValueError(f"flow must be dis, raft_small=FILE or raft_large=FILE, got {name!r}")


def opencv(what: str) -> ModuleType:
    """OpenCV, for ``what`` needs it.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f'{what} needs OpenCV: pip install "geokernels[video]"') from error
    return cv2


def _dis() -> Flow:
    cv2 = opencv("optical flow")
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # down to whole pixels: half the error of the preset's half resolution on small pictures
    estimator.setFinestScale(0)

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        return estimator.calc(*grey, None)

    return flow


def _raft(kind: str, path: Path, device: str | torch.device) -> Flow:
    try:
        from torchvision.models import optical_flow
    except ImportError as error:
        raise ImportError('RAFT needs torchvision: pip install "geokernels[video]"') from error
    state = read_state(f"flow {kind}", path)
    model = getattr(optical_flow, kind)(weights=None, progress=False)
    fill(model, state, name=f"flow {kind}", file=path.name, what=kind)
    model = model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        H, W = first.shape[:2]
        size = [max(LEAST, -(-side // MULTIPLE) * MULTIPLE) for side in (H, W)]
        frames = [torch.from_numpy(frame).to(device).permute(2, 0, 1)[None] for frame in (first, second)]
        shown = [
            F.interpolate(frame.float() / 127.5 - 1, size, mode="bilinear", align_corners=False)
            for frame in frames
        ]
        motion = F.interpolate(model(*shown)[-1], (H, W), mode="bilinear", align_corners=False)[0]
        scale = motion.new_tensor([W / size[1], H / size[0]])
        return (motion.permute(1, 2, 0) * scale).cpu().numpy()

    return flow
