"""The package refuses weights of its own that are not the ones that were measured."""

import hashlib
import json

import pytest

from geokernels.models.embedded import verify


@pytest.fixture(params=["folder", "file"])
def weights(request, tmp_path):
    path = tmp_path / "model.safetensors"
    file = path / "unet" / "weights" if request.param == "folder" else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    recorded = {"unet/weights": digest} if request.param == "folder" else digest
    (tmp_path / "model.record.json").write_text(json.dumps({"sha256": recorded}))
    return path, file


def test_recorded_files_pass(weights):
    verify(weights[0])


def test_changed_file(weights):
    path, file = weights
    file.write_bytes(b"weightz")
    with pytest.raises(ValueError, match=rf"{file.name} must have sha256 \w{{64}}, got \w{{64}}; install"):
        verify(path)


def test_missing_file(weights):
    path, file = weights
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"found no {file.name}; install"):
        verify(path)


def test_missing_record(weights):
    path, _ = weights
    path.with_suffix(".record.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no model\.record\.json; install"):
        verify(path)
