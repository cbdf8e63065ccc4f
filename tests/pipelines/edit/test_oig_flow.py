"""OIG on rectified flows, which is ours, written down line by line in float64, for SD3 and FLUX."""

import pytest
import torch
import torch.nn.functional as F

from geokernels.models import load_diffusion
from geokernels.models.flow import FlowModel
from geokernels.pipelines import OIGConfig, OIGEdit, OIGPipeline, draw_source, flow_inversion, oig_edit
from geokernels.pipelines.edit.flow_schedule import flow_schedule
from geokernels.pipelines.edit.network import spread_blocks
from geokernels.testing.pipelines import FLOWS

pytest.importorskip("diffusers")

STEPS, SCALE, SOURCE_SCALE = 3, 4.0, 1.7
# with so few steps features and pictures move far: with these, no term vanishes
SETTINGS = {"guidance_scale": SCALE, "structure": 0.7, "pull": 1000.0, "margin": 2.0, "blocks": 1.0}
SETTINGS |= {"source_guidance_scale": SOURCE_SCALE}


def start_of(pipeline, real, captions=("a b",)):
    if not real:
        chance = torch.Generator().manual_seed(1)
        return draw_source(pipeline, captions, steps=STEPS, height=24, width=40, generator=chance)
    shown = torch.rand(
        len(captions), 3, 24, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    return flow_inversion(pipeline, shown, captions, steps=STEPS)


class Literal:
    """One edit, one step after another; each copy of a pair is a pass of its own."""

    def __init__(self, pipeline, encoder, gradient, negative):
        self.model, self.encoder = FlowModel(pipeline), encoder
        self.gradient, self.negative = gradient, negative
        self.levels = flow_schedule(self.model, STEPS, (6, 10)).shares
        transformer = pipeline.transformer
        self.blocks = [
            *transformer.transformer_blocks,
            *getattr(transformer, "single_transformer_blocks", ()),
        ]

    def velocity(self, x, level, prompt, guidance=None):
        """With the picture's tokens behind every block."""
        words, tokens = self.model.read([prompt]), []
        if guidance is not None and words.guidance is not None:
            words = words._replace(guidance=torch.tensor([guidance]))
        handles = [b.register_forward_hook(lambda *call: tokens.append(call[2][1])) for b in self.blocks]
        v = self.model(x, level, words)
        for handle in handles:
            handle.remove()
        return v, tokens

    def pair(self, x, level, nothing, prompt, scale=SCALE):
        """Guided, with the tokens of both copies, or of the one that there is."""
        if self.model.packed:
            v, tokens = self.velocity(x, level, prompt, scale)
            return v, [tokens]
        through = x.detach() if self.gradient == "released" else x
        empty, without = self.velocity(x, level, nothing)
        asked, within = self.velocity(through, level, prompt)
        return empty + scale * (asked - empty), [without, within]

    def source_step(self, y, level, caption, real):
        if not real:
            return self.pair(y, level, "", caption)
        v, tokens = self.velocity(y, level, caption)
        if self.model.packed or self.negative == "source":
            return v, [tokens]
        return v, [self.velocity(y, level, "")[1], tokens]

    def anchored_source_step(self, y, level, caption):
        """The velocity that an edit's differs from, with the tokens that its are compared with."""
        if self.negative == "source":
            v, tokens = self.velocity(y, level, caption)
            return v, [tokens]
        return self.pair(y, level, "", caption, SOURCE_SCALE)

    def edit(self, start, source, target, real, structure, pull, margin, begin=None):
        x = y = start.latents
        before, vae, away = None, self.model.vae, 0.0
        side = self.encoder.image_size
        text_source, text_target = self.encoder.encode_text([source, target])[:, 0]
        nothing = source if real and self.negative == "source" else ""
        for k in range(STEPS):
            level, after = self.levels[k], self.levels[k + 1]
            if begin is not None and k < begin:
                x = y = start.path[k + 1]
                continue
            with torch.no_grad():
                if begin is None:
                    v, kept = self.source_step(y, level, source, real)
                    y = y + (after - level) * v
                else:
                    v, kept = self.anchored_source_step(y, level, source)
                    away = v - (start.path[k + 1] - y) / (after - level)
                    y = start.path[k + 1]
            leaf = x.detach().requires_grad_()
            v, tokens = self.pair(leaf, level, nothing, target)
            v = v - away
            x0 = leaf - level * v
            shown = vae.decode(x0 / vae.config.scaling_factor + vae.config.shift_factor).sample / 2 + 0.5
            shown = F.interpolate(shown, (side, side), mode="bicubic", antialias=True)
            image = self.encoder.encode_image(shown)[0]
            loss = 0.1 * (image @ text_source - image @ text_target + margin).clamp(min=0)
            for i in range(len(self.blocks)):
                now = torch.stack([copy[i] for copy in tokens])
                term = pull * (now - torch.stack([copy[i] for copy in kept])).square().mean()
                if before is not None:
                    term = (term - (now - before[i]).square().mean()).clamp(min=0)
                loss = loss + structure * term
            (gradient,) = torch.autograd.grad(loss, leaf)
            i = min(k + 1, STEPS - 1)
            length = 2 * 1.05 ** -(i + 1)
            x = (leaf + (after - level) * v - length * gradient).detach()
            before = [torch.stack([copy[i] for copy in tokens]).detach() for i in range(len(self.blocks))]
        return x, y


@pytest.mark.parametrize("real", [True, False], ids=["inverted", "drawn"])
@pytest.mark.parametrize(
    "kind, gradient, negative",
    [
        (FLOWS[0], "exact", "empty"),
        (FLOWS[0], "released", "source"),
        (FLOWS[1], "exact", "empty"),
        (FLOWS[2], "exact", "source"),
    ],
)
def test_the_same_latents(kind, gradient, negative, real, exact, encoder):
    pipeline, source = exact(kind), start_of(exact(kind), real)
    config = OIGConfig(gradient=gradient, negative=negative, anchored=False, **SETTINGS)
    run = OIGEdit(pipeline, encoder, source, ["a d"], config=config)
    while not run.done:
        run.step()
    literal = Literal(pipeline, encoder, gradient, negative)
    x, y = literal.edit(source, "a b", "a d", real, 0.7, 1000.0, 2.0)
    torch.testing.assert_close(run.edits, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.sources, y, rtol=1e-9, atol=1e-9)
    # every term had a part in it, after the first step as well
    assert (run.history[1:, 0, :3] > 0).all()


@pytest.mark.parametrize("begin", [0, 1])
@pytest.mark.parametrize(
    "kind, gradient, negative",
    [
        (FLOWS[0], "exact", "empty"),
        (FLOWS[0], "released", "source"),
        (FLOWS[1], "exact", "empty"),
        (FLOWS[2], "exact", "empty"),
    ],
)
def test_the_same_latents_where_edits_are_anchored(kind, gradient, negative, begin, exact, encoder):
    pipeline, source = exact(kind), start_of(exact(kind), True)
    config = OIGConfig(gradient=gradient, negative=negative, begin=(begin + 0.1) / STEPS, **SETTINGS)
    run = OIGEdit(pipeline, encoder, source, ["a d"], config=config)
    run.finish()
    literal = Literal(pipeline, encoder, gradient, negative)
    x, _ = literal.edit(source, "a b", "a d", True, 0.7, 1000.0, 2.0, begin)
    torch.testing.assert_close(run.edits, x, rtol=1e-9, atol=1e-9)
    assert torch.equal(run.sources, source.path[-1])
    assert (run.history[begin + 1 :, 0, :3] > 0).all()
    assert run.history[:begin].isnan().all()


def test_an_anchored_edit_to_what_its_source_says_is_its_source(exact, encoder):
    """At one scale, and with no loss, the difference of the two velocities is nothing."""
    pipeline, source = exact(FLOWS[0]), start_of(exact(FLOWS[0]), True, ("a b",))
    still = {"clip": 0.0, "structure": 0.0, "source_guidance_scale": SCALE, "guidance_scale": SCALE}
    run = OIGEdit(pipeline, encoder, source, ["a  b"], config=OIGConfig(**still))  # the same tokens
    run.finish()
    torch.testing.assert_close(run.edits, source.path[-1], rtol=1e-9, atol=1e-9)


class TestEdits:
    @pytest.mark.parametrize("kind", FLOWS[::2])
    def test_each_of_a_batch_minds_itself_and_resumes_to_the_bit(self, kind, exact, encoder):
        pipeline, config = exact(kind), OIGConfig(**SETTINGS)
        source = start_of(pipeline, True, ("a b", "c"))
        run = OIGEdit(pipeline, encoder, source, ["a d", "e"], config=config)
        run.step()
        state = run.state_dict()
        run.finish()
        again = OIGEdit(pipeline, encoder, source, ["a d", "e"], config=config)
        again.load_state_dict(state)
        again.finish()
        assert torch.equal(again.edits, run.edits)
        alone = start_of(pipeline, True, ("a b",))
        one = OIGEdit(pipeline, encoder, alone, ["a d"], config=config)
        one.finish()
        torch.testing.assert_close(one.edits[0], run.edits[0], rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("kind", FLOWS[::2])
    def test_checkpointing_changes_nothing(self, kind, exact, encoder):
        source, found = start_of(exact(kind), False), []
        for checkpointing in (False, True):
            config = OIGConfig(checkpointing=checkpointing, **SETTINGS)
            run = OIGEdit(exact(kind), encoder, source, ["a d"], config=config)
            run.finish()
            found.append(run.edits)
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
        assert not exact(kind).transformer.gradient_checkpointing

    def test_bfloat16_has_losses_in_float32(self, random_pipeline, single_encoder):
        pipeline = load_diffusion(random_pipeline("distilled"), dtype=torch.bfloat16)
        source = start_of(pipeline, True)
        result = oig_edit(pipeline, single_encoder, source, ["a d"], config=OIGConfig(**SETTINGS))
        assert result.history.dtype == torch.float32
        assert torch.isfinite(result.pictures).all()

    def test_as_a_pipeline_of_diffusers(self, exact, encoder):
        for kind in FLOWS[::2]:
            pipe = OIGPipeline.from_pipe(exact(kind))
            shown = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
            source = pipe.invert(shown, ["a b"], steps=2)
            images = pipe(source, ["a d"], encoder, output_type="pt").images
            expected = oig_edit(exact(kind), encoder, source, ["a d"]).pictures
            assert torch.equal(images, expected)
            assert pipe.transformer is exact(kind).transformer


class TestSettings:
    def test_the_recipe_is_their_own(self, exact, encoder, random_pipeline):
        source = start_of(exact(FLOWS[0]), True)
        config = OIGEdit(exact(FLOWS[0]), encoder, source, ["a d"]).config
        assert (config.recipe, config.gradient, config.negative) == ("flow", "exact", "empty")
        unet = load_diffusion(random_pipeline("StableDiffusionPipeline"))
        assert OIGConfig().settled(unet).recipe == "published"

    def test_blocks_are_spread_evenly(self, exact):
        class Transformer:
            transformer_blocks, single_transformer_blocks = range(3), range(3, 9)

        assert spread_blocks(Transformer, 1.0) == list(range(9))
        assert spread_blocks(Transformer, 0.33) == [2, 5, 8]
        assert spread_blocks(Transformer, 0.01) == [8]

    @pytest.mark.parametrize(
        "kind, settings, message",
        [
            (FLOWS[0], {"cycle": 1.0}, "cycle must be 0 for a rectified-flow model"),
            (FLOWS[2], {"gradient": "released"}, "gradient must be exact for FLUX"),
        ],
    )
    def test_what_does_not_go_with_them(self, kind, settings, message, exact, encoder):
        source = start_of(exact(kind), False)
        with pytest.raises(ValueError, match=message):
            OIGEdit(exact(kind), encoder, source, ["a d"], config=OIGConfig(**settings))

    def test_a_source_of_another_model(self, exact, encoder):
        with pytest.raises(ValueError, match="source must have been made with the same network"):
            OIGEdit(exact(FLOWS[0]), encoder, start_of(exact(FLOWS[1]), False), ["a d"])

    @pytest.mark.parametrize("share", [0.0, 1.5])
    def test_a_share_of_blocks(self, share):
        with pytest.raises(ValueError, match="blocks must "):
            OIGConfig(blocks=share)
