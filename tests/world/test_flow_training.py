"""The flow training resumes exactly, and what it reads of captions is what a pipeline reads of them."""

import json

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("open_clip")

from transformers import CLIPTextModelWithProjection  # noqa: E402

from geokernels.models import load_diffusion  # noqa: E402
from training import evaluate_flow, flow, vae  # noqa: E402
from training.diffusion_data import build_tokenizer  # noqa: E402
from training.flow_text import ZEROS, Captions, Counted, Words  # noqa: E402
from training.steps import Stage  # noqa: E402
from training.text import build_tower, freeze, longest_caption  # noqa: E402

PROMPT = "a photo of a small red striped circle on a blue background"


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """The folder of a quickly trained autoencoder, and it."""
    out = tmp_path_factory.mktemp("vae")
    large = vae.train_vae(vae.QUICK, out, quiet=True)
    large.save_pretrained(out / "vae")
    return out, large


def weights(module: torch.nn.Module) -> bytes:
    return b"".join(v.numpy().tobytes() for v in module.state_dict().values())


def test_flow_resumes_to_identical_weights(autoencoder, tmp_path, monkeypatch):
    _, large = autoencoder

    def train(folder):
        training = flow.Training(flow.QUICK, large, folder)
        training.run(quiet=True)
        return b"".join(map(weights, (training.transformer, *training.towers)))

    whole, update = train(tmp_path / "whole"), Stage._update

    def interrupted(self, *arguments):
        if self.name == "transformer" and self.step == 3:
            raise KeyboardInterrupt
        update(self, *arguments)

    monkeypatch.setattr(Stage, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    monkeypatch.setattr(Stage, "_update", update)
    assert train(tmp_path / "parts") == whole


@pytest.fixture(scope="module")
def exported(autoencoder, tmp_path_factory):
    """The folder of an export."""
    out, large = autoencoder
    training = flow.Training(flow.QUICK, large, tmp_path_factory.mktemp("flow"))
    training.run(quiet=True)
    folder = training.export(training.out / "world-flow", out)
    large.float()  # shared by the tests of this module; the export rounded it
    return folder


def test_export_is_read_as_any_stable_diffusion_3(exported):
    pipeline = load_diffusion(exported)
    assert type(pipeline) is diffusers.StableDiffusion3Pipeline
    pipeline.set_progress_bar_config(disable=True)
    for length in (0, 256):
        drawn = pipeline([PROMPT], num_inference_steps=2, output_type="pt", max_sequence_length=length)
        assert drawn.images.shape == (1, 3, 64, 64)
        assert torch.isfinite(drawn.images).all()
    record = json.loads(exported.with_suffix(".record.json").read_text())
    wanted = {"model_index.json", "tokenizer_2/vocab.json", "tokenizer/merges.txt", "vae/config.json"}
    assert wanted <= record["sha256"].keys()
    assert record["made"]["transformer"]["steps"] == flow.QUICK.steps


def test_training_gives_what_the_pipeline_gives(exported):
    """Rows, zeros in the place of T5, and the pooled vector are those of ``encode_prompt``, repeated."""
    pipeline = load_diffusion(exported)
    captions = Captions(
        pipeline.tokenizer, [pipeline.text_encoder, pipeline.text_encoder_2], width=flow.QUICK.joint
    )
    words = captions([PROMPT, ""], unpadded=0.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows, _, pooled, _ = pipeline.encode_prompt(
            [PROMPT, ""], None, None, do_classifier_free_guidance=False
        )
    assert torch.equal(words.pooled, pooled)
    n = captions.longest
    assert torch.equal(words.rows[:, :n], rows[:, :n])
    assert words.counts.sum(1).tolist() == [rows.shape[1]] * 2
    assert (words.rows[:, n, None] == rows[:, n:77]).all(-1).any(1).all()  # one of the rows of padding
    assert not rows[:, 77:].any()
    assert not words.rows[:, -1].any()
    without = captions([PROMPT], unpadded=1.0, generator=torch.Generator().manual_seed(0))
    assert without.counts.sum(1).tolist() == [77]


def test_evaluation_fills_the_card(exported, tmp_path, monkeypatch):
    blocks = ("training", "loading", "judged", "restored", "confusion")
    card = tmp_path / "card.md"
    card.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in blocks))
    options = {"pipeline": exported, "card": card, "picture": tmp_path / "grid.png"}
    options |= {"record": exported.with_suffix(".record.json"), "prompts": 12, "inverted": 2, "steps": 2}
    arguments = [word for k, v in options.items() for word in (f"--{k}", str(v))]
    monkeypatch.setattr("sys.argv", ["evaluate_flow", *arguments])
    # several processes that import diffusers
    monkeypatch.setattr(evaluate_flow, "loading", lambda imports, call: f"{call} was timed")
    evaluate_flow.main()
    found = card.read_text()
    assert "| all five | 0.0 (0.0 to 24.2) |" in found  # an untrained model; 12 prompts by Wilson's interval
    assert "transformer: 6 steps of 4 examples" in found
    assert "| midpoint, 8 passes there and back, against the render |" in found
    assert (tmp_path / "grid.png").stat().st_size > 0


@pytest.mark.parametrize(("order", "least"), [(1, 1.5), (2, 3.0)])
def test_halving_the_steps_shows_the_order_of_a_rule(order, least):
    """dx/ds = x cos s has the solution x exp(sin s): the error falls by 2 to the order's power."""
    x = torch.ones(1, dtype=torch.float64)
    exact = torch.tensor(1.0, dtype=torch.float64).sin().exp()

    def error(n: int) -> float:
        levels = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        return abs(evaluate_flow.integrate(lambda x, s: x * s.cos(), x, levels, order=order) - exact).item()

    assert error(10) / error(20) > least
    assert error(20) < 0.1


@pytest.mark.parametrize("zeros", [0, ZEROS])
def test_a_counted_row_acts_as_so_many_rows(zeros):
    torch.manual_seed(0)
    transformer = flow.build_transformer(flow.QUICK, 16)
    for parameter in transformer.parameters():  # gates that are closed would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    rows, pooled, latents = torch.randn(2, 7, 24), torch.randn(2, 20), torch.randn(2, 4, 16, 16)
    rows[:, -1] = 0
    counts = torch.tensor([1.0, 1, 1, 1, 1, 61, zeros]).expand(2, -1)

    def velocity(rows):
        with torch.no_grad():
            return transformer(
                latents,
                encoder_hidden_states=rows,
                pooled_projections=pooled,
                timestep=torch.tensor([30.0, 900.0]),
            ).sample

    repeated = velocity(rows.repeat_interleave(counts[0].long(), 1))
    with Counted(counts, patches=64):
        counted = velocity(rows)
    assert repeated.std() > 0.1
    torch.testing.assert_close(counted, repeated, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(velocity(rows), repeated, atol=1e-3)


def test_a_perfect_model_has_no_loss():
    """With the velocity itself as prediction the loss is zero, at every level, in the scheduler's terms."""
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    values = torch.zeros(3, 5, dtype=torch.int64)

    def oracle(noisy, timestep, **_):
        # the clean latents are all alike, so the velocity can be told from them
        s = (timestep / 1000).view(-1, 1, 1, 1)
        return type("Output", (), {"sample": (noisy - clean) / s})

    def captions(prompts, **_):
        return Words(
            torch.zeros(len(prompts), 2, 24), torch.ones(len(prompts), 2), torch.zeros(len(prompts), 20)
        )

    loss = flow.Velocity(flow.QUICK, oracle, captions, clean.expand(3, -1, -1, -1), values)
    assert loss(torch.Generator().manual_seed(0))["v"] < 1e-6
    scheduler = flow.build_scheduler()
    scheduler.set_timesteps(28)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        x = scheduler.step(oracle(x, t[None]).sample, t, x).prev_sample
    torch.testing.assert_close(x, clean, rtol=1e-4, atol=1e-4)


def test_noise_levels_have_a_normal_logit():
    logits = flow.levels(4096, generator=torch.Generator().manual_seed(0)).logit()
    assert abs(logits.mean()) < 0.01
    assert abs(logits.std() - 1) < 0.01


def test_towers_that_are_shipped_read_known_words_alone():
    tokenizer = build_tokenizer()
    tower = build_tower(CLIPTextModelWithProjection, tokenizer, width=8, layers=2, heads=2)
    freeze(tower, tokenizer)
    strange = tokenizer("zq").input_ids[1:-1]
    assert not tower.get_input_embeddings().weight[strange].any()
    assert tower.get_input_embeddings().weight[tokenizer("red").input_ids].any(1).all()
    assert longest_caption(tokenizer) >= len(tokenizer(PROMPT).input_ids)
