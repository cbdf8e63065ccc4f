"""A training goes on from its checkpoint, and from no damaged or other one."""

import pytest
import torch
from torch import nn

from training.generator import State
from training.steps import Stage


def stage(folder, width=3, name="text"):
    torch.manual_seed(0)
    return Stage(name, {"net": nn.Linear(width, 2)}, folder, decay=0.0, average=0.5)


def trained(folder):
    found = stage(folder)
    net = found.modules["net"]

    def loss(chance):
        return {"size": net(torch.randn(4, 3, generator=chance)).square().mean()}

    found.run(2, loss, rate=lambda step: 0.1, seed=0, save_every=1, quiet=True)
    return found


def test_it_goes_on_where_it_stood(tmp_path):
    first, second = trained(tmp_path), stage(tmp_path)
    assert second.step == 2
    assert torch.equal(first.modules["net"].weight, second.modules["net"].weight)
    assert torch.equal(first.average["net"]["weight"], second.average["net"]["weight"])


def test_damage_is_a_sentence(tmp_path):
    path = trained(tmp_path).path
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:500], b"", whole.replace(b"step", b"stop", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"text.ckpt is damaged .*; remove it to begin again"):
            stage(tmp_path)


def test_another_training_is_refused(tmp_path):
    path = trained(tmp_path).path
    with pytest.raises(ValueError, match=r"text.ckpt is of another training"):
        stage(tmp_path, width=4)
    path.rename(tmp_path / "unet.ckpt")
    with pytest.raises(ValueError, match="must be of training unet, it is of training text"):
        stage(tmp_path, name="unet")
    (tmp_path / "unet.ckpt").rename(tmp_path / "generator.ckpt")
    with pytest.raises(ValueError, match="must be of training generator, it is of training text"):
        State(None, None).load(tmp_path / "generator.ckpt")
