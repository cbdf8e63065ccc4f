"""Every method of editing runs, minds its own edit, leaves the models alone, and does what it is for."""

import copy
import math
from dataclasses import fields, replace

import pytest
import torch

from geokernels import world
from geokernels.models import load_diffusion
from geokernels.models.denoiser import Denoiser
from geokernels.models.diffusion import load_instructed, load_text_to_image
from geokernels.pipelines.comparators import METHODS, UNET, EditModels, EditTask
from geokernels.pipelines.comparators.attention import attending, cross_attentions, in_order, self_attentions
from geokernels.pipelines.comparators.ddim_swap import DdimSwapConfig
from geokernels.pipelines.comparators.lockstep import leave_noise
from geokernels.pipelines.comparators.masactrl import MasaCtrlConfig, _at_source
from geokernels.pipelines.comparators.null_text import NullTextConfig, fit_empty_prompt
from geokernels.pipelines.comparators.plug_and_play import PlugAndPlayConfig, _injected, injected_layers
from geokernels.pipelines.comparators.prompt_to_prompt import SharedWords, own_layout, shared_tokens
from geokernels.pipelines.edit.source import ddim_inversion, draw_source

pytest.importorskip("diffusers")

OURS = ("no_edit", "ddim_swap", "plug_and_play", "masactrl", "null_text")
SHIPPED = ("diffedit", "pix2pix_zero", "ledits")
GUIDANCE = 3.0
QUICK = {"null_text": {"inner": 2}, "diffedit": {"maps": 2}}


def pictures(n, dtype=torch.float32):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(3), dtype=dtype)


def task_of(pipeline, captions=("a b", "c"), targets=("a d", "e"), steps=3, skip=0, dtype=torch.float32):
    given = pictures(len(captions), dtype)
    source = ddim_inversion(pipeline, given, captions, steps=steps, skip=skip)
    return EditTask(given, source, tuple(targets), tuple(targets), tuple(range(len(targets))))


def run(name, models, task, **settings):
    method = METHODS[name]
    return method.run(models, task, method.settings(**{**QUICK.get(name, {}), **settings}))


@pytest.fixture(scope="module")
def pipeline(pipeline_folder):
    return load_diffusion(pipeline_folder)


@pytest.fixture(scope="module")
def task(pipeline):
    return task_of(pipeline)


@pytest.fixture
def exact_task(exact_pipeline):
    return task_of(exact_pipeline, dtype=torch.float64)


class TestEveryMethod:
    @pytest.mark.parametrize("name", ["oig", *OURS, *SHIPPED])
    def test_an_edit_minds_itself_and_leaves_the_models_alone(self, name, pipeline, task, single_encoder):
        models = EditModels(pipeline, single_encoder)
        before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
        processors = {key: type(value) for key, value in pipeline.unet.attn_processors.items()}
        both = run(name, models, task)
        assert both.shape == task.pictures.shape
        assert both.dtype == torch.float32
        assert 0 <= both.min() < both.max() <= 1
        assert (both[0] - both[1]).abs().max() > 1e-3
        for i in range(2):
            torch.testing.assert_close(run(name, models, task.part(i))[0], both[i], rtol=0, atol=2e-3)
        after = pipeline.unet.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        assert {k: type(v) for k, v in pipeline.unet.attn_processors.items()} == processors
        assert not any(p.requires_grad or p.grad is not None for p in pipeline.unet.parameters())
        assert not any(m._forward_hooks for m in pipeline.unet.modules())

    @pytest.mark.parametrize("name", ["oig", *OURS, *SHIPPED])
    def test_whether_it_begins_from_the_inversion(self, name, pipeline, task, single_encoder):
        models, source = EditModels(pipeline, single_encoder), task.source
        other = replace(
            task, source=replace(source, latents=source.latents.flip(-1), path=source.path.flip(-1))
        )
        same = torch.equal(run(name, models, task), run(name, models, other))
        assert same != METHODS[name].inverted

    @pytest.mark.parametrize("name", SHIPPED)
    def test_chance_is_the_seed_s(self, name, pipeline, task):
        models = EditModels(pipeline)
        alone = task.part(0)
        assert torch.equal(run(name, models, alone), run(name, models, alone))

    @pytest.mark.parametrize(
        "name",
        [n for n, m in METHODS.items() if UNET in m.suits and n not in ("no_edit", "instruct_pix2pix")],
    )
    def test_the_target_is_read(self, name, pipeline, task, single_encoder):
        models = EditModels(pipeline, single_encoder)
        alone = task.part(0)
        other = EditTask(alone.pictures, alone.source, ("x y z",), ("x y z",), alone.seeds)
        assert not torch.equal(run(name, models, alone), run(name, models, other))

    @pytest.mark.parametrize("name", OURS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
    def test_sdxl(self, name, random_pipeline, dtype):
        pipeline = load_text_to_image(random_pipeline("StableDiffusionXLPipeline"), dtype=dtype)
        found = run(name, EditModels(pipeline), task_of(pipeline, steps=2, skip=0))
        assert found.shape == (2, 3, 64, 64)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_what_is_shipped_takes_no_sdxl(self, name, random_pipeline, task):
        pipeline = load_text_to_image(random_pipeline("StableDiffusionXLPipeline"))
        with pytest.raises(TypeError, match="takes Stable Diffusion 1 and 2, got StableDiffusionXLPipeline"):
            run(name, EditModels(pipeline), task)

    @pytest.mark.parametrize("name", ["plug_and_play", "null_text"])
    def test_a_source_must_have_been_inverted(self, name, pipeline, task):
        drawn = draw_source(pipeline, ["a"], steps=3, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match="source must be an inversion with its path"):
            run(name, EditModels(pipeline), EditTask(pictures(1), drawn, ("b",), ("b",), (0,)))

    @pytest.mark.parametrize("name", METHODS)
    def test_settings_that_mean_nothing_are_refused(self, name):
        shares = {
            "features",
            "attention",
            "start",
            "layer",
            "words",
            "layout",
            "strength",
            "threshold",
            "skip",
        }
        for field in fields(METHODS[name].settings):
            if field.name in shares and field.default <= 1:
                with pytest.raises(ValueError, match=f"{field.name} must lie between 0 and 1"):
                    METHODS[name].settings(**{field.name: 1.5})


class TestInstructPix2Pix:
    """A trained one cannot be had here: that it loads and runs is all that is shown."""

    def test_loads_and_runs(self, random_pipeline, pipeline, task):
        instructed = load_instructed(random_pipeline("StableDiffusionInstructPix2PixPipeline"))
        models = EditModels(pipeline, instructed=instructed)
        found = run("instruct_pix2pix", models, task)
        assert found.shape == (2, 3, 64, 64)
        torch.testing.assert_close(
            run("instruct_pix2pix", models, task.part(1))[0], found[1], rtol=0, atol=1e-4
        )

    def test_refusals(self, pipeline_folder, pipeline, task):
        with pytest.raises(ValueError, match="needs a pipeline trained to follow instructions"):
            run("instruct_pix2pix", EditModels(pipeline), task)
        with pytest.raises(ValueError, match="must be a StableDiffusionInstructPix2PixPipeline, got"):
            load_instructed(pipeline_folder)


class TestLockstep:
    def test_unguided_with_its_own_caption_an_edit_is_its_source_out_of_noise(
        self, exact_pipeline, exact_task
    ):
        found = leave_noise(
            Denoiser(exact_pipeline), exact_task.source, exact_task.source.captions, guidance_scale=1.0
        )
        expected = run("no_edit", EditModels(exact_pipeline), exact_task)
        torch.testing.assert_close(Denoiser(exact_pipeline).pictures(found), expected)

    def test_path_of_an_inversion(self, exact_pipeline):
        source = task_of(exact_pipeline, steps=5, skip=1, dtype=torch.float64).source
        assert source.path.shape == (4, 2, 4, 16, 16)
        assert torch.equal(source.path[0], source.latents)
        clean = Denoiser(exact_pipeline).encode(pictures(2, torch.float64))
        torch.testing.assert_close(source.path[-1], clean)

    @pytest.mark.parametrize(
        "name, settings",
        [
            ("plug_and_play", PlugAndPlayConfig(guidance_scale=GUIDANCE, features=0, attention=0)),
            ("masactrl", MasaCtrlConfig(guidance_scale=GUIDANCE, start=1.0)),
            ("null_text", NullTextConfig(guidance_scale=GUIDANCE, enough=math.inf, words=0, layout=0)),
        ],
        ids=["plug_and_play", "masactrl", "null_text"],
    )
    @pytest.mark.parametrize("skip", [0, 1])
    def test_who_never_looks_swaps(self, exact_pipeline, name, settings, skip):
        task = task_of(exact_pipeline, steps=4, skip=skip, dtype=torch.float64)
        models = EditModels(exact_pipeline)
        swapped = run("ddim_swap", models, task, guidance_scale=GUIDANCE, negative="empty")
        assert torch.equal(METHODS[name].run(models, task, settings), swapped)
        looked = run(name, models, task, guidance_scale=GUIDANCE)
        assert (looked - swapped).abs().max() > 1e-6

    def test_negatives_of_the_swap(self, exact_pipeline, exact_task):
        models = EditModels(exact_pipeline)
        found = [
            METHODS["ddim_swap"].run(models, exact_task, DdimSwapConfig(negative=negative))
            for negative in ("source", "empty")
        ]
        assert (found[0] - found[1]).abs().max() > 1e-7
        with pytest.raises(ValueError, match="negative must be one of source, empty"):
            DdimSwapConfig(negative="none")


class TestAttention:
    def test_plain_attention_is_the_model_s_own(self, exact_pipeline):
        from geokernels.pipelines.comparators.attention import plain_attention

        denoiser, x = Denoiser(exact_pipeline), torch.randn(2, 4, 16, 16, dtype=torch.float64)
        words, blocks = denoiser.read(["a", "b"]), in_order(exact_pipeline.unet)
        layers = [*self_attentions(blocks), *cross_attentions(blocks)]
        assert len(layers) == 8  # down, middle and twice up
        expected = denoiser(x, 500, words)
        with torch.no_grad(), attending(layers, plain_attention):
            torch.testing.assert_close(denoiser(x, 500, words), expected)

    def test_the_middle_runs_between_down_and_up(self, exact_pipeline):
        unet, seen = exact_pipeline.unet, []
        layers = self_attentions(in_order(unet))
        hooks = [m.register_forward_hook(lambda m, a, b: seen.append(m)) for m in layers]
        denoiser = Denoiser(exact_pipeline)
        with torch.no_grad():
            denoiser(torch.zeros(1, 4, 16, 16, dtype=torch.float64), 500, denoiser.read(["a"]))
        for hook in hooks:
            hook.remove()
        assert [id(m) for m in seen] == [id(m) for m in layers]

    def test_mutual_attention_by_hand(self):
        q, k, v = (torch.randn(3, 2, 5, 4, dtype=torch.float64) for _ in range(3))
        found = _at_source(q, k, v, 0.5)
        for role in range(3):
            weights = (0.5 * q[role] @ k[0].mT).softmax(-1)
            torch.testing.assert_close(found[role], weights @ v[0])

    def test_layout_of_the_source_by_hand(self):
        q, k, v = (torch.randn(3, 2, 5, 4, dtype=torch.float64) for _ in range(3))
        found = own_layout(q, k, v, 0.5)
        for role, whose in enumerate((0, 1, 0)):
            weights = (0.5 * q[whose] @ k[whose].mT).softmax(-1)
            torch.testing.assert_close(found[role], weights @ v[role])

    def test_plug_and_play_gives_every_role_the_source_s_features(self, exact_pipeline):
        pipeline = copy.deepcopy(exact_pipeline)
        denoiser, (feature, layers) = Denoiser(pipeline), injected_layers(pipeline.unet)
        assert feature is pipeline.unet.up_blocks[0].resnets[1].conv2
        assert len(layers) == 1  # of two on the way up
        words, seen = denoiser.read(["a", "", "b"]), []
        x = torch.randn(3, 4, 16, 16, dtype=torch.float64)
        with torch.no_grad():
            with _injected(feature, layers, PlugAndPlayConfig(), 0.6):
                watch = feature.register_forward_hook(lambda m, a, found: seen.append(found))
                denoiser(x, 500, words)
            watch.remove()
        assert torch.equal(seen[0][1], seen[0][0])
        assert torch.equal(seen[0][2], seen[0][0])


class TestPromptToPrompt:
    def test_partners(self, pipeline):
        tokenizer = pipeline.tokenizer
        found = shared_tokens(tokenizer, "a b c", "a d c")
        # start, a, b or d, c, end and padding
        assert found[:5] == [0, 1, -1, 3, 4]
        assert found[5:] == list(range(5, 77))
        longer = shared_tokens(tokenizer, "a c", "a b c")
        assert longer[:5] == [0, 1, -1, 2, 3]

    def test_shared_words_are_seen_where_the_source_s_are(self, pipeline):
        attend = SharedWords(pipeline.tokenizer, ["a b"], ["a c"], torch.device("cpu"))
        q, k = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 77, 4)
        v = torch.eye(77).expand(3, 2, 77, 77)  # what is seen are the weights
        found, plain = attend(q, k, v, 0.5), (0.5 * q @ k.mT).softmax(-1)
        new = 2  # start, a, then the word that differs
        torch.testing.assert_close(found[:2], plain[:2])
        torch.testing.assert_close(found[2, ..., new], plain[2, ..., new])
        rest = [i for i in range(77) if i != new]
        torch.testing.assert_close(found[2][..., rest], plain[0][..., rest])


class TestNullText:
    def test_guided_sampling_comes_back(self):
        pipeline, chance = load_diffusion("world"), torch.Generator().manual_seed(0)
        scenes = world.sample_scenes(1, generator=chance)
        captions = world.caption(scenes)
        source = ddim_inversion(pipeline, world.render(scenes), captions, steps=4, skip=0)
        denoiser, config = Denoiser(pipeline), NullTextConfig(inner=5, rate=0.1)
        fitted = fit_empty_prompt(denoiser, source, config)
        assert len(fitted) == 4
        ends = [
            leave_noise(denoiser, source, captions, guidance_scale=config.guidance_scale, negatives=negatives)
            for negatives in (fitted, None)
        ]
        missed = [float((end - source.path[-1]).norm()) for end in ends]
        assert missed[0] < 0.8 * missed[1]
        assert not any(p.requires_grad for p in pipeline.unet.parameters())

    def test_stops_where_it_is_good_enough(self, exact_pipeline, exact_task):
        denoiser = Denoiser(exact_pipeline)
        fitted = fit_empty_prompt(denoiser, exact_task.source, NullTextConfig(enough=math.inf))
        empty = denoiser.read([""]).rows.float()
        assert all(torch.equal(words.rows.float(), empty.expand(2, -1, -1)) for words in fitted)
