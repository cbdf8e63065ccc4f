"""Flow is that of the rendered world's clips; RAFT reads its weights from a file."""

import numpy as np
import pytest
import torch

from geokernels import world
from geokernels.models import load_flow

pytest.importorskip("cv2")


def clip(frames=4):
    chance = torch.Generator().manual_seed(1)
    return world.render_clip(world.sample_scenes(1, generator=chance), frames, generator=chance)


def as_bytes(frames):
    return frames.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def test_dis_follows_the_ground():
    truth, flow = clip(12), load_flow("dis")
    found = flow(*as_bytes(truth.frames[5:7]))
    assert found.shape == (64, 64, 2)
    assert found.dtype == np.float32
    ground = (truth.masks[5, 0] == 0) & truth.visible[5, 0]
    error = np.linalg.norm(found - truth.flow[5].permute(1, 2, 0).numpy(), axis=-1)[ground.numpy()]
    assert np.median(error) < 0.2 < truth.flow[5].norm(dim=0).median()


def test_raft_runs_on_small_frames_from_a_file_of_weights(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    flow = load_flow(f"raft_small={tmp_path / 'raft.pth'}")
    first, second = as_bytes(clip(2).frames[:, :, :40, :48])
    found = flow(first, second)
    assert found.shape == (40, 48, 2)
    assert np.isfinite(found).all()
    assert np.array_equal(found, flow(first, second))


def test_what_is_no_estimator_is_refused(tmp_path):
    for name in ("farneback", "raft_small", "dis=x"):
        with pytest.raises(ValueError, match="flow must be dis, raft_small=FILE or raft_large=FILE"):
            load_flow(name)
    with pytest.raises(FileNotFoundError, match="flow raft_small must be an existing file"):
        load_flow(f"raft_small={tmp_path / 'none.pth'}")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"flow raft_small must fit raft_small, which has .* but other.pth lacks it"
    ):
        load_flow(f"raft_small={tmp_path / 'other.pth'}")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"tensors alone, but text.pth could not be read"):
        load_flow(f"raft_small={tmp_path / 'text.pth'}")
