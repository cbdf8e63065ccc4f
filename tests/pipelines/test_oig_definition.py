"""OIG's latents are those of its description, read line by line: one edit at a time, everything kept."""

import copy

import pytest
import torch
import torch.nn.functional as F

from geokernels.pipelines.edit_source import ddim_inversion, draw_source
from geokernels.pipelines.oig import OIGConfig, OIGEdit

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
        self, pipeline, encoder, steps, *, guidance=5.0, structure=1.0, pull=2.5, margin=0.5, gradient="exact"
    ):
        self.pipeline, self.encoder, self.N = pipeline, encoder, steps
        self.s, self.lambda2, self.pull, self.gradient = guidance, structure, pull, gradient
        self.margin = margin
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

    def unet(self, x, t, words):
        self.features.clear()
        out = self.pipeline.unet(x, t, encoder_hidden_states=words).sample
        return out, list(self.features)

    def parts(self, x, out, bar):
        """Picture and noise of latents."""
        if self.kind == "epsilon":
            return (x - (1 - bar) ** 0.5 * out) / bar**0.5, out
        return bar**0.5 * x - (1 - bar) ** 0.5 * out, bar**0.5 * out + (1 - bar) ** 0.5 * x

    def ddim(self, x, out, bar, bar_next):
        x0, eps = self.parts(x, out, bar)
        return bar_next**0.5 * x0 + (1 - bar_next) ** 0.5 * eps

    @torch.no_grad()
    def invert(self, picture, caption, skip):
        vae = self.pipeline.vae
        x = vae.encode(picture * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        levels = list(range(self.N))[::-1]
        for i in levels[skip : self.N - skip]:
            out, _ = self.unet(x, self.timesteps[i], self.words(caption))
            x = self.ddim(x, out, self.bars[i + 1], self.bars[i])
        return x

    @torch.no_grad()
    def source_pass(self, x, caption, real):
        """Features of every step, for both copies of a pair, and the picture's latents."""
        stored = []
        for i, t in enumerate(self.timesteps):
            other = caption if real else ""
            pair = torch.cat([self.words(other), self.words(caption)])
            out, features = self.unet(torch.cat([x, x]), t, pair)
            out_u, out_c = out.chunk(2)
            out = out_c if real else out_u + self.s * (out_c - out_u)
            stored.append(features)
            x = self.ddim(x, out, self.bars[i], self.bars[i + 1])
        return stored, x

    def edit(self, x, source, target, real):
        stored, _ = self.source_pass(x, source, real)
        before = None
        side, vae = self.encoder.image_size, self.pipeline.vae
        text_source, text_target = self.encoder.encode_text([source, target])[:, 0]
        pair = torch.cat([self.words(source if real else ""), self.words(target)])
        for i, t in enumerate(self.timesteps):
            x_in = torch.cat([x, x]).requires_grad_()
            out, features = self.unet(x_in, t, pair)
            out_u, out_c = out.chunk(2)
            out = out_u + self.s * (out_c - out_u)
            x0, _ = self.parts(x_in[:1], out, self.bars[i])
            shown = vae.decode(x0 / vae.config.scaling_factor).sample / 2 + 0.5
            shown = F.interpolate(shown, (side, side), mode="bilinear", antialias=True)
            image = self.encoder.encode_image(shown)[0]
            loss = CLIP_WEIGHT * (image @ text_source - image @ text_target + self.margin).clamp(min=0)
            for layer, f in enumerate(features):
                term = self.pull * F.mse_loss(f, stored[i][layer])
                if before is not None:
                    term = torch.clamp(term - F.mse_loss(f, before[layer].detach()), min=0)
                loss = loss + self.lambda2 * term
            (g,) = torch.autograd.grad(loss, x_in)
            g = g[:1] if self.gradient == "released" else g[:1] + g[1:]
            k, tenth = i + 1, self.N // 10
            eta = 2 * k / tenth if k < tenth else 2 * 1.05**-k
            x = (self.ddim(x, out, self.bars[i], self.bars[i + 1]) - eta * g).detach()
            before = [f.detach() for f in features]
        return x


@pytest.mark.parametrize("gradient", ["exact", "released"])
@pytest.mark.parametrize("real", [True, False], ids=["inverted", "drawn"])
@pytest.mark.parametrize("prediction", [{}, V], ids=["epsilon", "v"])
def test_the_same_latents(exact_pipeline, prediction, real, gradient, encoder):
    pipeline = copy.copy(exact_pipeline)
    settings = {"clip_sample": False, "steps_offset": 1, **prediction}
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, **settings)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    # in so few steps features and pictures move far: with these, no term vanishes
    settings = {"gradient": gradient, "structure": 1.5, "pull": 1000.0, "margin": 2.0}
    literal = Literal(copy.deepcopy(pipeline), encoder, 3, **settings)
    if real:
        source = ddim_inversion(pipeline, picture, ["a"], steps=3)
        start = literal.invert(picture, "a", skip=1)
        torch.testing.assert_close(source.latents, start, rtol=1e-12, atol=1e-12)
    else:
        source = draw_source(pipeline, ["a"], steps=3, generator=torch.Generator().manual_seed(1))
    run = OIGEdit(pipeline, encoder, source, ["b"], config=OIGConfig(**settings))
    while not run.done:
        run.step()
    expected = literal.edit(source.latents, "a", "b", real)
    torch.testing.assert_close(run.edits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.sources, literal.source_pass(source.latents, "a", real)[1])
    # every term had a part in it, after the first step as well
    assert (run.history[:2, 0] > 0).all()
