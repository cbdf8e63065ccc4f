"""The diffusion trainings run, stop and resume exactly; their data is what it is said to be."""

import json

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
open_clip = pytest.importorskip("open_clip")

from transformers import CLIPTextModel  # noqa: E402

from geokernels.models import load_diffusion, load_tiny_autoencoder  # noqa: E402
from geokernels.world import ATTRIBUTES, TEMPLATES, WORDS, judge, sample_scenes  # noqa: E402
from geokernels.world.held_out import held_out, sample_seen, sample_unseen  # noqa: E402
from training import diffusion, evaluate_diffusion, vae  # noqa: E402
from training.clip_data import values_of  # noqa: E402
from training.diffusion_data import build_tokenizer, captions_of, tokenize  # noqa: E402
from training.steps import Stage  # noqa: E402
from training.text import build_tower  # noqa: E402


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory):
    """A folder of quickly trained autoencoders, and the large one."""
    out = tmp_path_factory.mktemp("vae")
    large = vae.train_vae(vae.QUICK, out, quiet=True)
    vae.train_tiny(vae.QUICK, large, out, quiet=True)
    return out, large


def weights(module: torch.nn.Module) -> bytes:
    return b"".join(v.numpy().tobytes() for v in module.state_dict().values())


def interrupt_after(steps: int, monkeypatch) -> None:
    """Let the next training die in the middle of its step number ``steps``."""
    update = Stage._update

    def interrupted(self, *arguments):
        if self.step == steps:
            raise KeyboardInterrupt
        update(self, *arguments)

    monkeypatch.setattr(Stage, "_update", interrupted)


def test_autoencoder_resumes_to_identical_weights(autoencoders, tmp_path, monkeypatch):
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        vae.train_vae(vae.QUICK, tmp_path, quiet=True)
    monkeypatch.undo()
    assert weights(vae.train_vae(vae.QUICK, tmp_path, quiet=True)) == weights(autoencoders[1])


def test_latents_have_unit_scale(autoencoders):
    _, large = autoencoders
    x = vae.pictures(64, 64, generator=torch.Generator().manual_seed(0))
    latents = large.encode(x).latent_dist.mode() * large.config.scaling_factor
    assert 0.9 < latents.std() < 1.1


def test_diffusion_resumes_to_identical_weights(autoencoders, tmp_path, monkeypatch):
    _, large = autoencoders

    def train(folder):
        training = diffusion.Training(diffusion.QUICK, large, folder)
        training.run(quiet=True)
        return weights(training.unet) + weights(training.text)

    whole = train(tmp_path / "whole")
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    monkeypatch.undo()
    assert train(tmp_path / "parts") == whole

    monkeypatch.setattr(Stage, "_update", lambda *_: pytest.fail("trained on"))
    assert train(tmp_path / "parts") == whole


def test_export_is_a_pipeline_with_a_record(autoencoders, tmp_path):
    out, large = autoencoders
    training = diffusion.Training(diffusion.QUICK, large, tmp_path)
    training.run(quiet=True)
    folder = training.export(tmp_path / "model", out)
    pipeline, tiny = load_diffusion(folder), load_tiny_autoencoder(folder / "vae_tiny")
    large.float()  # shared by the tests of this module; the export rounded it
    assert pipeline.vae_scale_factor == 4
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(["a red circle"], num_inference_steps=2, output_type="pt").images
    assert pictures.shape == (1, 3, 64, 64)
    assert torch.isfinite(pictures).all()
    assert tiny.decode(torch.zeros(1, 4, 16, 16)).sample.shape == (1, 3, 64, 64)
    record = json.loads((tmp_path / "model.record.json").read_text())
    assert {"model_index.json", "tokenizer/vocab.json", "vae_tiny/config.json"} <= record["sha256"].keys()
    assert record["made"]["unet"]["steps"] == diffusion.QUICK.steps + diffusion.QUICK.again

    # what was never read is zero, so that a reader can tell
    known = tokenize(pipeline.tokenizer, sorted(WORDS)).unique()
    rows = pipeline.text_encoder.get_input_embeddings().weight.any(1)
    assert rows.nonzero()[:, 0].tolist() == known.tolist()


def test_evaluation_fills_the_card(autoencoders, tmp_path, monkeypatch):
    out, large = autoencoders
    training = diffusion.Training(diffusion.QUICK, large, tmp_path)
    training.run(quiet=True)
    folder = training.export(tmp_path / "model", out)
    large.float()
    blocks = ("training", "loading", "judged", "restored", "through", "confusion")
    card = tmp_path / "card.md"
    card.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in blocks))
    options = {
        "pipeline": folder,
        "card": card,
        "picture": tmp_path / "grid.png",
        "record": tmp_path / "model.record.json",
        "prompts": 12,
        "renders": 4,
        "inverted": 2,
        "steps": 3,
    }
    arguments = [word for k, v in options.items() for word in (f"--{k}", str(v))]
    monkeypatch.setattr("sys.argv", ["evaluate_diffusion", *arguments])
    # several processes that import diffusers
    monkeypatch.setattr(evaluate_diffusion, "loading", lambda imports, call: f"{call} was timed")
    evaluate_diffusion.main()
    found = card.read_text()
    assert "| all five | 0.0 (0.0 to 24.2) |" in found  # an untrained model; 12 prompts by Wilson's interval
    assert "unet: 7 steps of 4 examples" in found
    assert f"load_diffusion('{folder}') was timed" in found
    assert (tmp_path / "grid.png").stat().st_size > 0


def test_going_there_and_back_with_a_perfect_model_changes_nothing():
    """Where all pictures are one, the model that knows it inverts and restores exactly."""
    picture = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler = diffusion.build_scheduler()

    class Pipeline:
        def encode_prompt(self, prompts, *_):
            return None, None

        def unet(self, x, step, words):
            signal = scheduler.alphas_cumprod[step]
            noise = (x - signal.sqrt() * picture) / (1 - signal).sqrt()
            return type("Output", (), {"sample": signal.sqrt() * noise - (1 - signal).sqrt() * picture})

    pipeline = Pipeline()
    pipeline.scheduler = scheduler
    back = evaluate_diffusion.there_and_back(pipeline, picture, ["x"], steps=50)
    assert (back - picture).square().mean() < 1e-6


def test_the_model_sees_the_signal_that_the_sampler_assumes():
    signal = diffusion.build_scheduler().alphas_cumprod
    assert signal[-1] == 0
    assert (signal.diff() < 0).all()


def test_a_perfect_model_has_no_loss(autoencoders):
    """With v itself as prediction the loss is zero, at every noise level: target and weight agree."""
    config, latents = diffusion.QUICK, torch.randn(3, 4, 16, 16)
    values, seen = torch.zeros(3, 5, dtype=torch.int64), {}

    class Oracle:
        def __call__(self, noisy, step, words):
            # the clean latents are all alike, so the noise can be told from them
            signal = loss.signal[step].view(-1, 1, 1, 1)
            noise = (noisy - signal.sqrt() * latents[:1]) / (1 - signal).sqrt()
            seen["sample"] = signal.sqrt() * noise - (1 - signal).sqrt() * latents[:1]
            return type("Output", (), seen)

    tokenizer = build_tokenizer()
    text = build_tower(CLIPTextModel, tokenizer, width=8, layers=1, heads=2)
    loss = diffusion.Denoising(config, Oracle(), text, tokenizer, latents[:1].expand(3, -1, -1, -1), values)
    assert loss(torch.Generator().manual_seed(0))["v"] < 1e-8


def test_tokenizer_splits_words_as_the_whole_one_does():
    ours, whole = build_tokenizer(), open_clip.get_tokenizer("RN50")
    for word in WORDS:
        tokens = ours.convert_ids_to_tokens(ours(word, add_special_tokens=False).input_ids)
        assert tokens == [whole.decoder[i] for i in whole.encode(word)]
    assert len(ours) < 700
    assert tokenize(ours, ["", "a red circle"]).shape == (2, 77)


def test_training_sees_every_pair_of_values_but_not_every_combination():
    generator = torch.Generator().manual_seed(0)
    seen, unseen = sample_seen(4000, generator=generator), sample_unseen(500, generator=generator)
    assert len(seen) == 4000
    assert len(unseen) == 500
    assert not held_out(seen).any()
    assert held_out(unseen).all()
    values, names = values_of(seen), list(ATTRIBUTES)
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            pairs = len({tuple(row) for row in values[:, [i, j]].tolist()})
            same = 8 if {a, b} == {"colour", "background"} else 0  # an object never has the ground's colour
            assert pairs == len(ATTRIBUTES[a]) * len(ATTRIBUTES[b]) - same
    assert 0.15 < held_out(sample_scenes(5000, generator=generator)).float().mean() < 0.25


def test_captions_name_what_is_shown_and_some_nothing():
    generator = torch.Generator().manual_seed(0)
    scenes = sample_seen(1000, generator=generator)
    values = values_of(scenes)
    prompts, said = captions_of(values, silent=0.1, generator=generator)
    assert 60 < prompts.count("") < 140
    for prompt, names in zip(prompts, scenes.names()):
        told = [w for w in prompt.split() if w not in ("a", "an", "object", "on", "background")]
        frame = {word for template in TEMPLATES for word in template.split()}
        assert set(told) - frame <= set(names.values())
    assert [(row < 0).all() for row in said] == [p == "" for p in prompts]
    assert ((said == values) | (said < 0)).all()
    whole = [p for p, n in zip(prompts, scenes.names()) if p and set(n.values()) <= set(p.split())]
    assert len(whole) > 500


def test_judge_is_not_fooled_by_noise():
    """An untrained model earns nothing: what the evaluation counts is not there by chance."""
    noise = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (judge(noise).values == -1).all()
