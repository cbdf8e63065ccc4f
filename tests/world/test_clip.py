"""The shipped CLIPs are the recorded ones and know the world; training runs, stops and resumes exactly."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
import torch

from geokernels.world import ATTRIBUTES, TEMPLATES, WORDS, describe, render, sample_scenes

pytest.importorskip("open_clip")
WEIGHTS = Path(str(resources.files("geokernels"))) / "world" / "weights"


@pytest.mark.parametrize("name, limit", [("world-clip", 12_000_000), ("world-evaluation-clip", 4_000_000)])
def test_weights_are_the_recorded_ones(name, limit):
    record = json.loads((WEIGHTS / f"{name}.record.json").read_text())
    content = (WEIGHTS / record["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    assert len(content) == record["bytes"] <= limit


@pytest.mark.parametrize("name", ["world-clip", "world-evaluation-clip"])
def test_rows_of_unused_tokens_are_zero(name):
    from safetensors import safe_open

    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        rows = file.get_tensor("token_embedding.weight")
    assert rows.dtype == torch.float16
    assert rows.shape[0] == 49408
    assert len(WORDS) <= rows.any(1).sum() <= len(WORDS) + 8


@pytest.mark.parametrize("name", ["world", "world-evaluation"])
@pytest.mark.filterwarnings("default")
def test_zero_shot_accuracy(name):
    from geokernels.models import load_clip

    encoder = load_clip(name)
    assert all(encoder.unknown_words(word) == [] for word in WORDS)
    scenes = sample_scenes(400, generator=torch.Generator().manual_seed(2**41))
    features = encoder.encode_image(render(scenes))
    for attribute, values in ATTRIBUTES.items():
        prompts = [describe({attribute: value}) for value in values]
        text = encoder.encode_text(prompts, TEMPLATES).mean(1)
        right = ((features @ text.T).argmax(1) == getattr(scenes, attribute)).float().mean()
        # 95% is promised, and 400 scenes estimate it within two points
        assert right >= 0.93, f"{attribute}: {right:.3f}"


@pytest.mark.parametrize("name, final", [("world", "robust"), ("evaluation", "captions")])
def test_training_resumes_to_identical_weights(name, final, tmp_path, monkeypatch):
    from training import clip, steps
    from training.clip_files import QUICK

    update = steps.Stage._update

    def interrupted(self, *arguments):
        # in the last stage, after a checkpoint of its own
        if self.name == final and self.step == 3:
            raise KeyboardInterrupt
        update(self, *arguments)

    whole = clip.train(QUICK[name], tmp_path / "whole", quiet=True).read_bytes()
    monkeypatch.setattr(steps.Stage, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clip.train(QUICK[name], tmp_path / "parts", quiet=True)
    monkeypatch.setattr(steps.Stage, "_update", update)
    assert clip.train(QUICK[name], tmp_path / "parts", quiet=True).read_bytes() == whole

    monkeypatch.setattr(steps.Stage, "_update", lambda *_: pytest.fail("trained on"))
    assert clip.train(QUICK[name], tmp_path / "parts", quiet=True).read_bytes() == whole


def test_short_texts_are_encoded_as_open_clip_encodes_them():
    from open_clip.model import CLIP

    from training.clip_data import Captions
    from training.clip_files import QUICK, architecture
    from training.clip_losses import encode_tokens

    captions = Captions()
    model = CLIP(**architecture(QUICK["world"], len(captions.used))).eval()
    short = captions.tokens[::5000]
    full = torch.nn.functional.pad(short, (0, 77 - short.shape[1]))
    torch.testing.assert_close(encode_tokens(model, short), model.encode_text(full, normalize=True))
