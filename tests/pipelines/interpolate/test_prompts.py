"""interpolate_prompts: ends, evenness, resuming, models that it refuses, and the pipeline of diffusers."""

import weakref

import pytest
import torch

from geokernels.media import frame_files
from geokernels.models import load_text_to_image
from geokernels.models.text_to_image import Invariance, TextToImage
from geokernels.pipelines import PromptInterpolation, PromptInterpolationConfig, interpolate_prompts

pytest.importorskip("diffusers")
PROMPTS = ["red cat", "a blue hat on a mat"]


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(pictures, others):
    return (pictures - others).square().mean((1, 2, 3)).sqrt()


def quick(**more) -> PromptInterpolationConfig:
    return PromptInterpolationConfig(**{"frames": 4, "steps": 1, "batch": 3, **more})


@pytest.fixture(scope="module")
def model(random_pipeline):
    return TextToImage(load_text_to_image(random_pipeline("StableDiffusionPipeline")))


def draw(model, prompt: str, noise: torch.Tensor, config) -> torch.Tensor:
    key = model.encode(prompt)
    how = {"steps": config.steps, "guidance_scale": config.guidance_scale}
    return model.draw(key.rows[None], None, model.encode_negative(), noise, **how)[0]


@pytest.mark.parametrize("coupling", ["ot", "row", "slerp", "random"])
def test_ends_are_the_pictures_of_the_prompts(coupling, model):
    config = quick(coupling=coupling)
    found = interpolate_prompts(model, PROMPTS, config=config, generator=chance(), distance=pixels)
    noise = torch.randn(1, 4, 16, 16, generator=chance())
    for frame, prompt in zip(found.frames[[0, -1]], PROMPTS):
        # in 8 bits
        torch.testing.assert_close(frame, draw(model, prompt, noise, config), rtol=0, atol=0.6 / 255)
    assert found.score.fidelity > 0.9
    assert found.times.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.score.length == pytest.approx(float(found.distances.sum()), abs=1e-5)


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"])
def test_rows_of_all_encoders_move_together_and_reach_the_end(kind, random_pipeline):
    model = TextToImage(load_text_to_image(random_pipeline(kind)))
    size = {"height": 64, "width": 64} if kind == "FluxPipeline" else {}
    run = PromptInterpolation(
        model, PROMPTS, config=quick(frames=2, **size), generator=chance(), distance=pixels
    )
    (segment,), last = run.path.segments, run.keys[-1]
    moved = segment.end[:, None].eq(last.rows).all(-1)  # whole rows, all encoders' numbers in them
    assert moved.any(1).all()
    assert moved.any(0).all()
    assert not torch.equal(segment.end, last.rows)
    assert torch.equal(run.path.pooled[-1], last.pooled)
    while not run.done:
        run.step()
    # at the end the rows are those of the prompt in another order, the picture is the same
    assert run.score().fidelity > 0.9


def test_entropic_does_not_reach_the_end_exactly(model):
    config = quick(coupling="entropic", eps=1.0)
    found = interpolate_prompts(model, PROMPTS, config=config, generator=chance(), distance=pixels)
    assert found.score.fidelity < 0.9


def test_batches_do_not_change_pictures(model):
    one, many = (
        interpolate_prompts(model, PROMPTS, config=quick(batch=batch), generator=chance()).frames
        for batch in (1, 4)
    )
    torch.testing.assert_close(one, many, rtol=0, atol=1.1 / 255)


def test_key_prompts_are_met_on_the_way(model):
    config = quick(frames=5)
    found = interpolate_prompts(model, [*PROMPTS, "dog"], config=config, generator=chance())
    noise = torch.randn(1, 4, 16, 16, generator=chance())
    torch.testing.assert_close(
        found.frames[2], draw(model, PROMPTS[1], noise, config), rtol=0, atol=0.6 / 255
    )


def test_noise_turns_from_seed_to_seed(model):
    config = quick(frames=3)
    found = interpolate_prompts(model, ["red cat"] * 2, config=config, generator=[chance(0), chance(1)])
    for frame, seed in ((found.frames[0], 0), (found.frames[2], 1)):
        noise = torch.randn(1, 4, 16, 16, generator=chance(seed))
        torch.testing.assert_close(frame, draw(model, "red cat", noise, config), rtol=0, atol=0.6 / 255)
    run = PromptInterpolation(model, ["red cat"] * 2, config=config, generator=[chance(0), chance(1)])
    lengths = run._noise_at(0, torch.tensor([0.0, 0.5, 1.0])).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths[1], lengths[[0, 2]].mean())


def test_negative_prompts_and_guidance_matter(model):
    plain, guided, away = (
        interpolate_prompts(
            model, PROMPTS, config=quick(guidance_scale=g), generator=chance(), negative=n
        ).frames
        for g, n in ((1.0, None), (4.0, None), (4.0, "dog"))
    )
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, away)


@pytest.mark.parametrize("prompts", [["", "red cat"], ["red cat", ""], ["", ""]], ids=str)
def test_a_prompt_may_be_empty(prompts, model):
    found = interpolate_prompts(model, prompts, config=quick(), generator=chance(), distance=pixels)
    assert found.invariance.permuted < 1e-3
    # the last bits depend on the size of a batch
    assert (float(found.distances.sum()) > 1e-3) == (prompts[0] != prompts[1])


def test_embeddings_are_as_good_as_prompts(model):
    keys = [model.encode(prompt) for prompt in PROMPTS]
    given, said = (
        interpolate_prompts(model, prompts, config=quick(), generator=chance()).frames
        for prompts in (keys, PROMPTS)
    )
    assert torch.equal(given, said)


class TestUniform:
    @pytest.fixture
    def steep(self, model, monkeypatch):
        """Rows whose first number runs from 0 to 1, drawn as a steep curve of it."""
        calls = []

        def drawn(rows, *args, **kwargs):
            calls.append(len(rows))
            share = rows[:, 0, 0]
            brightness = torch.where(share <= 1, (torch.tanh(8 * (share - 0.5)) + 1) / 2, share)
            return brightness.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).float()

        monkeypatch.setattr(model, "draw", drawn)
        keys = [model.encode("a") for _ in range(2)]
        ends = [key._replace(rows=torch.full_like(key.rows, value)) for key, value in zip(keys, (0.0, 1.0))]
        return ends, calls

    def run(self, model, ends, **more):
        config = quick(frames=9, **more)
        known = Invariance(0.0, 0.0, 0.01)
        run = PromptInterpolation(
            model, ends, config=config, generator=chance(), distance=pixels, invariance=known
        )
        while not run.done:
            run.step()
        return run

    def test_steps_become_even(self, model, steep):
        plain, even = (self.run(model, steep[0], uniform=uniform) for uniform in (False, True))
        assert plain.score().worst_step > 1.5
        assert even.score().worst_step <= 1.1
        assert even.score().smoothness > 0.95
        assert even.times.tolist() == sorted(even.times.tolist())

    def test_the_most_even_round_counts_where_none_is_even_enough(self, model, steep):
        runs = [self.run(model, steep[0], uniform=True, evenness=1e-9, rounds=n) for n in (1, 2, 3)]
        worst = [run.score().worst_step for run in runs]
        assert worst == sorted(worst, reverse=True)
        assert [run.round for run in runs] == [1, 2, 3]

    def test_no_picture_is_drawn_twice(self, model, steep):
        ends, calls = steep
        run = self.run(model, ends, uniform=True)
        # the goal, and every time once
        assert sum(calls) == 1 + len(run._pictures)

    def test_pictures_in_files_make_the_same_path_and_a_batch_of_them_is_held(
        self, model, steep, tmp_path, monkeypatch
    ):
        how = {"config": quick(frames=24, batch=4, uniform=True, rounds=3), "generator": chance()}
        how |= {"distance": pixels, "invariance": Invariance(0.0, 0.0, 0.01)}
        held = PromptInterpolation(model, steep[0], **how)
        held.finish()
        alive, most = weakref.WeakSet(), [0]
        read = frame_files.read_frame

        def noted(path):
            frame = read(path)
            alive.add(frame)
            most[0] = max(most[0], len(alive))
            return frame

        monkeypatch.setattr(frame_files, "read_frame", noted)
        made = frame_files.FrameFiles(lambda number: tmp_path / f"{number:03d}.png")
        run = PromptInterpolation(model, steep[0], made=made, **{**how, "generator": chance()})
        run.finish()
        assert run.round == 3
        assert torch.equal(run.distances(), held.distances())
        assert run.score() == held.score()
        assert 0 < most[0] <= 5  # a batch of pairs
        assert torch.equal(run.frames, held.frames)
        assert {len(said) for said in run.state_dict()["pictures"]} == {64}  # checksums

    def test_without_a_distance_no_picture_is_drawn_to_be_compared_with(self, model, steep):
        ends, calls = steep
        how = {"config": quick(frames=5, batch=2), "invariance": Invariance(0.0, 0.0, 0.01)}
        run = PromptInterpolation(model, ends, generator=chance(), **how)
        assert run.steps == 3
        run.finish()
        assert calls == [2, 2, 1]
        # whoever goes on with a distance wants the score
        again = PromptInterpolation(model, ends, generator=chance(), distance=pixels, **how)
        again.load_state_dict(run.state_dict())
        again.finish()
        assert calls == [2, 2, 1, 1]
        assert again.score().fidelity > 0.9

    def test_needs_a_distance(self, model):
        with pytest.raises(ValueError, match="distance must be given for uniform speed"):
            PromptInterpolation(model, PROMPTS, config=quick(uniform=True), generator=chance())


class TestResuming:
    def test_ends_as_if_never_stopped_and_draws_nothing_twice(self, model, monkeypatch):
        def begin():
            config = quick(uniform=True, rounds=2, batch=2)
            return PromptInterpolation(model, PROMPTS, config=config, generator=chance(), distance=pixels)

        whole = begin()
        while not whole.done:
            whole.step()
        run, count, drawn = begin(), 0, []
        original = model.draw
        monkeypatch.setattr(
            model, "draw", lambda rows, *a, **k: drawn.append(len(rows)) or original(rows, *a, **k)
        )
        while not run.done:
            run.step()
            count += 1
            state = run.state_dict()
            run = PromptInterpolation(
                model,
                PROMPTS,
                config=run.config,
                generator=chance(),
                distance=pixels,
                invariance=run.invariance,
            )
            run.load_state_dict(state)
        assert torch.equal(run.frames, whole.frames)
        assert torch.equal(run.times, whole.times)
        assert count == len(drawn)
        assert sum(drawn) == 1 + len(run._pictures)

    @pytest.mark.parametrize(
        "change, sentence",
        [
            ({"config": quick(frames=5)}, "made with frames = 4, this run has 5"),
            ({"prompts": ["red cat", "dog"]}, "made with prompts = "),
            ({"generator": chance(1)}, "made with another seed"),
        ],
    )
    def test_another_run_is_refused(self, change, sentence, model):
        given = {"prompts": PROMPTS, "config": quick(), "generator": chance()}
        state = PromptInterpolation(model, **given).state_dict()
        with pytest.raises(ValueError, match=sentence):
            PromptInterpolation(model, **{**given, **change}).load_state_dict(state)


class TestRefusals:
    def test_a_model_that_knows_the_order_of_rows(self, random_pipeline):
        model = TextToImage(load_text_to_image(random_pipeline("StableDiffusionPipeline")))

        def number_rows(unet, args, kwargs):
            rows = kwargs["encoder_hidden_states"]
            place = torch.linspace(-3, 3, rows.shape[1])[:, None]
            return args, {**kwargs, "encoder_hidden_states": rows + place}

        model.pipeline.unet.register_forward_pre_hook(number_rows, with_kwargs=True)
        with pytest.raises(ValueError, match=r"exchanging them changes its output by [\d.e+]+% .* 1% is"):
            PromptInterpolation(model, PROMPTS, generator=chance())

    def test_half_precision_that_rounds_too_coarsely(self, model):
        coarse = Invariance(0.2, 0.2, 0.1)
        halved = TextToImage(model.pipeline)
        halved.pipeline.unet.to(torch.bfloat16)
        try:
            with pytest.raises(
                ValueError, match=r"by 20% .* or rounds too coarsely, which float32 would tell"
            ):
                PromptInterpolation(halved, PROMPTS, generator=chance(), invariance=coarse)
        finally:
            halved.pipeline.unet.to(torch.float32)

    def test_different_lengths_for_a_model_that_counts_rows(self, random_pipeline):
        model = TextToImage(load_text_to_image(random_pipeline("StableDiffusion3Pipeline")))
        key = model.encode("red cat")
        short = key._replace(rows=key.rows[:111], kinds=key.kinds[:111])
        with pytest.raises(ValueError, match=r"as many rows each for this model, got 333 and 111: repeating"):
            PromptInterpolation(model, [key, short], generator=chance())

    def test_numbers_of_generators(self, model):
        with pytest.raises(ValueError, match="generator must be one, or one for each of 2, got 3"):
            PromptInterpolation(model, PROMPTS, generator=[chance()] * 3)

    @pytest.mark.parametrize(
        "setting, sentence",
        [
            ({"coupling": "best"}, "coupling must be one of"),
            ({"rows": "few"}, "rows must be one of"),
            ({"frames": 1}, "frames must be at least 2, got 1"),
            ({"guidance_scale": 0.5}, "guidance_scale must be a finite number, 1 or above, got 0.5"),
            ({"eps": 0.0}, "eps must be a finite number above 0"),
        ],
    )
    def test_settings(self, setting, sentence):
        with pytest.raises(ValueError, match=sentence):
            PromptInterpolationConfig(**setting)


def test_prompts_of_different_lengths_are_coupled_by_a_plan(random_pipeline):
    model = TextToImage(load_text_to_image(random_pipeline("PixArtAlphaPipeline")))
    prompts = ["red", "blue hat"]  # of 5 and 10 tokens
    assert [len(model.encode(prompt).rows) for prompt in prompts] == [5, 10]
    found = interpolate_prompts(model, prompts, config=quick(steps=2), generator=chance(), distance=pixels)
    assert found.invariance.repeated < 1e-3
    # as many parts of rows at the end as at the start, and the end is that of the prompt's own rows
    assert found.score.fidelity > 0.9


class TestPipeline:
    @pytest.fixture
    def kind(self):
        from geokernels.pipelines import PromptInterpolationPipeline

        return PromptInterpolationPipeline

    def test_draws_what_interpolate_prompts_draws(self, kind, model):
        pipe = kind.from_pipe(model.pipeline)
        settings = {"frames": 3, "num_inference_steps": 1, "guidance_scale": 3.0}
        found = pipe(PROMPTS, generator=chance(), output_type="pt", **settings)
        direct = interpolate_prompts(model, PROMPTS, config=quick(frames=3, batch=8), generator=chance())
        assert torch.equal(found.images, direct.frames)
        assert [image.size for image in pipe(PROMPTS, generator=chance(), **settings).images] == [
            (64, 64)
        ] * 3

    @pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "PixArtSigmaPipeline"])
    def test_loads_folders_and_saves_them_back(self, kind, name, random_pipeline, tmp_path):
        from diffusers import DiffusionPipeline

        pipe = kind.from_pretrained(random_pipeline(name))
        assert isinstance(pipe, DiffusionPipeline)
        assert type(pipe.inner).__name__ == name
        pipe.save_pretrained(tmp_path / "saved")
        again = kind.from_pretrained(tmp_path / "saved")
        settings = {"frames": 2, "num_inference_steps": 2, "output_type": "pt"}
        first, second = (p(PROMPTS, generator=chance(), **settings).images for p in (pipe, again))
        torch.testing.assert_close(first, second, rtol=0, atol=1.1 / 255)

    def test_shares_components_and_follows_what_replaces_them(self, kind, random_pipeline):
        from diffusers import EulerDiscreteScheduler

        source = load_text_to_image(random_pipeline("StableDiffusionPipeline"))
        pipe = kind.from_pipe(source)
        assert pipe.unet is source.unet
        pipe.scheduler = EulerDiscreteScheduler()
        assert pipe.inner.scheduler is pipe.scheduler
        pipe.to(torch.float64)
        assert source.unet.dtype == torch.float64
        assert kind.from_pipe(pipe).inner is pipe.inner

    def test_other_pipelines_are_refused(self, kind, model):
        from diffusers import DDPMPipeline

        with pytest.raises(TypeError, match=r"must be one of StableDiffusionPipeline, .* got DDPMPip"):
            kind.from_pipe(DDPMPipeline(model.pipeline.unet, model.pipeline.scheduler))
        with pytest.raises(ValueError, match="output_type must be pil or pt, got 'latent'"):
            kind.from_pipe(model.pipeline)(PROMPTS, generator=chance(), output_type="latent")
