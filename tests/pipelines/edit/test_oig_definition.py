"""OIG's latents are those of its description, read line by line: one edit at a time, everything kept."""

import copy

import pytest
import torch
import torch.nn.functional as F

from geokernels.pipelines.edit.oig import OIGConfig, OIGEdit
from geokernels.pipelines.edit.source import ddim_inversion, draw_source

diffusers = pytest.importorskip("diffusers")

V = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

CLIP_WEIGHT = 0.1


def layers_of(unet):
    names = [
        f"{way}_blocks.{i}.resnets.{j}.conv2"
        for way in ("down", "up")
        for i, block in enumerate(getattr(unet, f"{way}_blocks"))
        for j in range(len(block.resnets))
    ]
    return [unet.get_submodule(name) for name in names]


class Literal:
    """The method on a float64 pipeline; ``steps`` of its scheduler."""

    def __init__(
        self,
        pipeline,
        encoder,
        steps,
        *,
        guidance_scale=5.0,
        structure=1.0,
        pull=2.5,
        margin=0.5,
        gradient="exact",
        cycle=0.0,
        cycle_steps=None,
        negative="source",
    ):
        self.pipeline, self.encoder, self.N = pipeline, encoder, steps
        self.s, self.lambda2, self.pull, self.gradient = guidance_scale, structure, pull, gradient
        self.margin, self.lambda4 = margin, cycle
        self.lambda3 = cycle / 5
        self.negative = negative
        # levels of the sampling that closes the cycle
        self.levels = {None: [0, 1, 2, 3], 2: [0, 1, 3], 1: [0, 3]}[cycle_steps]
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(steps)
        self.timesteps = scheduler.timesteps.tolist()
        self.bars = [float(scheduler.alphas_cumprod[t]) for t in self.timesteps]
        self.bars.append(float(scheduler.final_alpha_cumprod))
        self.kind = scheduler.config.prediction_type
        self.features = []
        for layer in layers_of(pipeline.unet):
            layer.register_forward_hook(lambda module, given, found: self.features.append(found))

    def words(self, prompt):
        return self.pipeline.encode_prompt([prompt], "cpu", 1, False)[0]

    def other_words(self, source, real):
        """Those of the copy without the prompt."""
        return self.words(source if real and self.negative == "source" else "")

    def unet(self, x, t, words):
        self.features.clear()
        out = self.pipeline.unet(x, t, encoder_hidden_states=words).sample
        return out, list(self.features)

    def parts(self, x, out, bar):
        """Picture and noise of latents."""
        if bar == 1:  # no noise to divide by: that of the least noisy level
            return x, self.parts(x, out, self.bars[-2])[1]
        if self.kind == "epsilon":
            return (x - (1 - bar) ** 0.5 * out) / bar**0.5, out
        if self.kind == "sample":
            return out, (x - bar**0.5 * out) / (1 - bar) ** 0.5
        return bar**0.5 * x - (1 - bar) ** 0.5 * out, bar**0.5 * out + (1 - bar) ** 0.5 * x

    def ddim(self, x, out, bar, bar_next):
        x0, eps = self.parts(x, out, bar)
        return bar_next**0.5 * x0 + (1 - bar_next) ** 0.5 * eps

    @torch.no_grad()
    def invert(self, picture, caption, skip):
        vae = self.pipeline.vae
        x = vae.encode(picture * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        for i in reversed(range(max(skip, 1), self.N - skip)):
            out, _ = self.unet(x, self.timesteps[i], self.words(caption))
            x = self.ddim(x, out, self.bars[i], self.bars[i - 1])
        return x

    @torch.no_grad()
    def source_pass(self, x, caption, real):
        """Features of every step, for both copies of a pair, and the picture's latents."""
        stored = []
        for i, t in enumerate(self.timesteps):
            pair = torch.cat([self.other_words(caption, real), self.words(caption)])
            out, features = self.unet(torch.cat([x, x]), t, pair)
            out_u, out_c = out.chunk(2)
            out = out_c if real else out_u + self.s * (out_c - out_u)
            stored.append(features)
            x = self.ddim(x, out, self.bars[i], self.bars[i + 1])
        return stored, x

    def edit(self, x, source, target, real):
        """Latents of the edit, and those of the source on their way back at every step."""
        stored, y = self.source_pass(x, source, real)
        before, ways = None, []
        side, vae = self.encoder.image_size, self.pipeline.vae
        text_source, text_target = self.encoder.encode_text([source, target])[:, 0]
        pair = torch.cat([self.other_words(source, real), self.words(target)])
        if self.lambda4:
            y = self.way_back(y, x, 0, source, real, pair)
        for k, t in enumerate(self.timesteps):
            i = min(k + 1, self.N - 1)  # of lengths and weights: as released, one on
            x_in = torch.cat([x, x]).requires_grad_()
            out, features = self.unet(x_in, t, pair)
            out_u, out_c = out.chunk(2)
            out = out_u + self.s * (out_c - out_u)
            x0, _ = self.parts(x_in[:1], out, self.bars[k])
            shown = vae.decode(x0 / vae.config.scaling_factor).sample / 2 + 0.5
            shown = F.interpolate(shown, (side, side), mode="bicubic", antialias=True)
            image = self.encoder.encode_image(shown)[0]
            loss = CLIP_WEIGHT * (image @ text_source - image @ text_target + self.margin).clamp(min=0)
            for layer, f in enumerate(features):
                term = self.pull * F.mse_loss(f, stored[k][layer])
                if before is not None:
                    term = torch.clamp(term - F.mse_loss(f, before[layer].detach()), min=0)
                loss = loss + self.lambda2 * term
            tenth = self.N // 10
            eta = 2 * (i + 1) / tenth if i + 1 < tenth else 2 * 1.05 ** -(i + 1)
            moved = self.ddim(x, out, self.bars[k], self.bars[k + 1]) - eta * self.gradient_of(loss, x_in)
            if self.lambda4:
                ways.append(y)
                goal = self.sample(self.extrapolated(y, k + 1, source, real)[1].detach(), pair)
                cycle = (x0 - goal).square().sum().sqrt()
                moved = moved - self.lambda4 * (1 - i / self.N) * self.gradient_of(cycle, x_in)
            x = moved.detach()
            before = [f.detach() for f in features]
            if self.lambda4 and k + 1 < self.N:
                y = self.way_back(y, x, k + 1, source, real, pair)
        return x, ways

    def gradient_of(self, loss, pair):
        (g,) = torch.autograd.grad(loss, pair, retain_graph=True)
        return g[:1] if len(g) == 1 or self.gradient == "released" else g[:1] + g[1:]

    def guided(self, x, t, pair):
        out_u, out_c = self.unet(torch.cat([x, x]), t, pair)[0].chunk(2)
        return out_u + self.s * (out_c - out_u)

    @torch.no_grad()
    def sample(self, x, pair):
        for level, after in zip(self.levels, self.levels[1:]):
            out = self.guided(x, self.timesteps[level], pair)
            x = self.ddim(x, out, self.bars[level], self.bars[after])
        return x

    def extrapolated(self, y, i, source, real):
        """The source's latents after i steps back as the U-Net's rows, at the noisiest level and one up."""
        level = max(self.N - 1 - i, 0)
        bar, t = self.bars[level], self.timesteps[level]
        if level == 0 or real:
            y_in = y.clone().requires_grad_()
        if level == 0:  # nothing is noisier
            return y_in, y_in, y
        if real:
            out, _ = self.unet(y_in, t, self.words(source))
        else:
            y_in = torch.cat([y, y]).requires_grad_()
            out_u, out_c = self.unet(y_in, t, torch.cat([self.words(""), self.words(source)]))[0].chunk(2)
            out = out_u + self.s * (out_c - out_u)
        up = self.ddim(y_in[:1], out, bar, self.bars[level - 1])
        return y_in, self.ddim(y_in[:1], out, bar, self.bars[0]), up.detach()

    def way_back(self, y, x, i, source, real, pair):
        y_in, extrapolated, up = self.extrapolated(y, i, source, real)
        with torch.no_grad():
            picture = self.parts(x, self.guided(x, self.timesteps[i], pair), self.bars[i])[0]
            origin = self.ddim(picture, self.guided(picture, self.timesteps[-1], pair), 1.0, self.bars[0])
        loss = (extrapolated - origin).square().sum().sqrt()
        return up - self.lambda3 * (1 - i / self.N) * self.gradient_of(loss, y_in)


# in so few steps features and pictures move far: with these, no term vanishes
SETTINGS = {"structure": 1.5, "pull": 1000.0, "margin": 2.0}


def predicting(exact_pipeline, prediction):
    pipeline = copy.copy(exact_pipeline)
    settings = {"clip_sample": False, "steps_offset": 1, **prediction}
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, **settings)
    return pipeline


def start_of(pipeline, literal, real):
    """Noise, inverted or drawn."""
    if not real:
        return draw_source(pipeline, ["a"], steps=3, generator=torch.Generator().manual_seed(1))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    source = ddim_inversion(pipeline, picture, ["a"], steps=3)
    torch.testing.assert_close(source.latents, literal.invert(picture, "a", skip=1), rtol=1e-12, atol=1e-12)
    return source


@pytest.mark.parametrize("gradient", ["exact", "released"])
@pytest.mark.parametrize("real", [True, False], ids=["inverted", "drawn"])
@pytest.mark.parametrize("prediction", [{}, V], ids=["epsilon", "v"])
def test_the_same_latents(exact_pipeline, prediction, real, gradient, encoder):
    pipeline, settings = predicting(exact_pipeline, prediction), {"gradient": gradient, **SETTINGS}
    literal = Literal(copy.deepcopy(pipeline), encoder, 3, **settings)
    source = start_of(pipeline, literal, real)
    run = OIGEdit(pipeline, encoder, source, ["b"], config=OIGConfig(**settings))
    while not run.done:
        run.step()
    expected, _ = literal.edit(source.latents, "a", "b", real)
    torch.testing.assert_close(run.edits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.sources, literal.source_pass(source.latents, "a", real)[1])
    # every term had a part in it, after the first step as well
    assert (run.history[:2, 0] > 0).all()


def test_the_published_update_up_to_rounding(exact_pipeline, encoder):
    literal = Literal(copy.deepcopy(exact_pipeline), encoder, 3, gradient="released")
    source = start_of(exact_pipeline, literal, True)
    config = OIGConfig(gradient="released")
    found = OIGEdit(exact_pipeline, encoder, source, ["b"], config=config)
    found.finish()
    expected, _ = literal.edit(source.latents, "a", "b", True)
    torch.testing.assert_close(found.edits, expected, rtol=1e-13, atol=1e-12)


def test_the_same_latents_away_from_no_prompt(exact_pipeline, encoder):
    settings = {"gradient": "exact", "negative": "empty", "cycle": 0.5, "cycle_steps": 2, **SETTINGS}
    literal = Literal(copy.deepcopy(exact_pipeline), encoder, 3, **settings)
    source = start_of(exact_pipeline, literal, True)
    run = OIGEdit(exact_pipeline, encoder, source, ["b"], config=OIGConfig(**settings))
    away = OIGEdit(
        exact_pipeline, encoder, source, ["b"], config=OIGConfig(**{**settings, "negative": "source"})
    )
    while not run.done:
        run.step()
        away.step()
    expected, _ = literal.edit(source.latents, "a", "b", True)
    torch.testing.assert_close(run.edits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.sources, away.sources)
    assert (run.edits - away.edits).abs().max() > 1e-3


@pytest.mark.parametrize("gradient, cycle_steps", [("exact", None), ("released", 2)])
@pytest.mark.parametrize("real", [True, False], ids=["inverted", "drawn"])
@pytest.mark.parametrize("prediction", [{}, V, {"prediction_type": "sample"}], ids=["epsilon", "v", "sample"])
def test_the_same_latents_with_the_cycle(exact_pipeline, prediction, real, gradient, cycle_steps, encoder):
    pipeline = predicting(exact_pipeline, prediction)
    settings = {"gradient": gradient, "cycle": 0.5, "cycle_steps": cycle_steps, **SETTINGS}
    literal = Literal(copy.deepcopy(pipeline), encoder, 3, **settings)
    source = start_of(pipeline, literal, real)
    run, ways = OIGEdit(pipeline, encoder, source, ["b"], config=OIGConfig(**settings)), []
    while not run.done:
        run.step()
        ways.append(run.cycle.latents)
    expected, way = literal.edit(source.latents, "a", "b", real)
    torch.testing.assert_close(run.edits, expected, rtol=1e-9, atol=1e-9)
    # the last step back is not taken: no step of the edit would look at it
    for found, before in zip(ways[:2], way[1:], strict=True):
        torch.testing.assert_close(found, before, rtol=1e-9, atol=1e-9)


def test_every_term_of_the_cycle_has_a_part(exact_pipeline, encoder):
    literal = Literal(copy.deepcopy(exact_pipeline), encoder, 3, cycle=0.5, **SETTINGS)
    source = start_of(exact_pipeline, literal, False)
    expected, _ = literal.edit(source.latents, "a", "b", False)
    for term in ("lambda2", "lambda3", "lambda4"):
        without = copy.copy(literal)
        setattr(without, term, 1e-12)
        # two orders above what the tests of the same latents let pass
        assert (without.edit(source.latents, "a", "b", False)[0] - expected).abs().max() > 1e-6
