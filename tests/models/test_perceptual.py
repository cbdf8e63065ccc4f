"""LPIPS loads a backbone from a file of torchvision's format, is a distance, and refuses another's file."""

import pytest
import torch
import torchvision

from geokernels.models.perceptual import load_lpips


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


def test_a_distance_with_a_gradient_to_the_pictures_alone(weights):
    lpips = load_lpips("alex", weights)
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    y = torch.rand(2, 3, 64, 64)
    apart = lpips(x, y)
    assert apart.shape == (2,)
    assert (apart > 0).all()
    assert torch.equal(lpips(y, y), torch.zeros(2))
    apart.sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in lpips.parameters())


def test_the_file_s_weights_are_the_ones_used(weights):
    state = torch.load(weights, weights_only=True)
    assert torch.equal(load_lpips("alex", weights).net.net.slice1[0].weight, state["features.0.weight"])


def test_refusals(weights, tmp_path):
    with pytest.raises(ValueError, match="backbone must be one of alex, vgg, squeeze, got 'resnet'"):
        load_lpips("resnet", weights)
    with pytest.raises(ValueError, match=r"weights must fit vgg, which has 'features.0.weight' of shape"):
        load_lpips("vgg", weights)
    with pytest.raises(FileNotFoundError, match="weights must be an existing file, found none"):
        load_lpips("alex", tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"tensors alone, but text.pth could not be read"):
        load_lpips("alex", tmp_path / "text.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"weights must hold a state dict, got list in list.pth"):
        load_lpips("alex", tmp_path / "list.pth")


def test_lpips_own_weights_are_told_from_the_backbone_s(weights, tmp_path):
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "alex.pth")
    with pytest.raises(ValueError, match=r"LPIPS' own weights of channels, .* give torchvision's backbone"):
        load_lpips("alex", tmp_path / "alex.pth")
    state = torch.load(weights, weights_only=True)
    state["features.3.bias"][0] = float("nan")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "nan.pth")
    with pytest.raises(
        ValueError, match=r"--lpips-weights must be finite, got NaN or infinity in 'features.3.bias'"
    ):
        load_lpips("alex", tmp_path / "nan.pth", called="--lpips-weights")
