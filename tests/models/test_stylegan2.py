"""Generator agrees with the paper's formulas written plainly, and is what its docstrings claim."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, correlate2d

from geokernels.models import Generator, GeneratorConfig

SMALL = GeneratorConfig(channels=(6, 5, 4), style_dim=7, mapping_layers=2)


def untamed(config: GeneratorConfig, seed: int = 0) -> Generator:
    """A generator whose every tensor is random, filters included, so that no term and no flip can hide."""
    generator = Generator(config).double()
    chance = torch.Generator().manual_seed(seed)
    for value in [*generator.parameters(), *generator.buffers()]:
        value.data = torch.randn(value.shape, generator=chance, dtype=torch.float64)
    for layer in generator.style[1:]:
        layer.weight.data /= layer.rate
    return generator


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Plain:
    """One picture at a time, one channel at a time, in NumPy and SciPy: weights are modulated as defined."""

    def __init__(self, generator: Generator) -> None:
        self.state = {k: v.detach().numpy() for k, v in generator.state_dict().items()}

    def linear(self, name, x, rate=1.0):
        weight = self.state[f"{name}.weight"] * rate / np.sqrt(len(x))
        return weight @ x + self.state[f"{name}.bias"] * rate

    def activate(self, x):
        return np.where(x > 0, x, 0.2 * x) * np.sqrt(2)

    def mapping(self, z):
        w = z / np.sqrt((z**2).mean() + 1e-8)
        for i in range(1, 100):
            if f"style.{i}.weight" not in self.state:
                return w
            w = self.activate(self.linear(f"style.{i}", w, rate=0.01))

    def weight(self, name, w, normalise):
        weight = self.state[f"{name}.weight"][0]
        weight = weight / np.sqrt(weight[0].size) * self.linear(f"{name}.modulation", w)[:, None, None]
        if normalise:
            weight = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        return weight

    def spread(self, x):
        """Zeros between the pixels of one channel."""
        wide = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
        wide[::2, ::2] = x
        return wide

    def convolve(self, name, x, w, normalise=True):
        weight = self.weight(name, w, normalise)
        blur = self.state.get(f"{name}.blur.kernel")
        if blur is None:
            return np.stack([sum(correlate2d(c, k, "same") for c, k in zip(x, row)) for row in weight])
        doubled = [sum(convolve2d(self.spread(c)[:-1, :-1], k) for c, k in zip(x, row)) for row in weight]
        return np.stack([convolve2d(np.pad(c, 1), blur, "valid") for c in doubled])

    def layer(self, name, x, w, noise):
        x = self.convolve(f"{name}.conv", x, w) + self.state[f"{name}.noise.weight"] * noise
        return self.activate(x + self.state[f"{name}.activate.bias"][:, None, None])

    def rgb(self, name, x, w, skip):
        rgb = self.convolve(f"{name}.conv", x, w, normalise=False) + self.state[f"{name}.bias"][0]
        if skip is None:
            return rgb
        kernel = self.state[f"{name}.upsample.kernel"]
        return rgb + np.stack([convolve2d(np.pad(self.spread(c), (2, 1)), kernel, "valid") for c in skip])

    def synthesis(self, w):
        """``w`` (codes, style_dim) to (3, size, size)."""
        noise = [self.state[f"noises.noise_{i}"][0, 0] for i in range(len(w) - 1)]
        x = self.layer("conv1", self.state["input.input"][0], w[0], noise[0])
        rgb = self.rgb("to_rgb1", x, w[1], None)
        for i in range(len(w) // 2 - 1):
            for j in (2 * i, 2 * i + 1):
                x = self.layer(f"convs.{j}", x, w[j + 1], noise[j + 1])
            rgb = self.rgb(f"to_rgbs.{i}", x, w[2 * i + 3], rgb)
        return (rgb + 1) / 2


def test_matches_the_formulas_written_plainly():
    generator = untamed(SMALL)
    plain = Plain(generator)
    z, codes = random(2, 7), random(2, SMALL.codes, 7, seed=2)
    w = generator.mapping(z)
    for mine, z_row in zip(w, z):
        np.testing.assert_allclose(mine.detach(), plain.mapping(z_row.numpy()), rtol=1e-10)
    for drawn, row in zip(generator.synthesis(codes), codes):
        np.testing.assert_allclose(drawn.detach(), plain.synthesis(row.numpy()), rtol=1e-9, atol=1e-9)
    same = generator(z).detach()
    for drawn, row in zip(same, w.detach()):
        expected = plain.synthesis(row.expand(SMALL.codes, -1).numpy())
        np.testing.assert_allclose(drawn, expected, rtol=1e-9, atol=1e-9)


def test_filter_is_binomial():
    kernel = Generator(SMALL).convs[0].conv.blur.kernel
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    torch.testing.assert_close(kernel, 4 * tap[:, None] * tap)


def test_gradients_by_finite_differences():
    generator = untamed(GeneratorConfig((3, 2), style_dim=4, mapping_layers=1))
    codes = random(2, 4, 4).requires_grad_()
    leaves = (generator.convs[0].conv.weight, generator.convs[0].noise.weight, generator.input.input)
    assert torch.autograd.gradcheck(lambda w, *_: generator.synthesis(w), (codes, *leaves), fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda w: generator.synthesis(w).square().mean(), codes, fast_mode=True
    )


def test_pictures_do_not_depend_on_their_batch():
    generator = untamed(SMALL)
    w = random(5, 7)
    alone = torch.cat([generator.synthesis(row) for row in w.split(1)])
    torch.testing.assert_close(generator.synthesis(w), alone)


def test_features_are_channels_last():
    generator, seen = Generator(SMALL), []
    for layer in (generator.conv1, *generator.convs):
        layer.register_forward_hook(lambda _, args, out: seen.append(out))
    generator(torch.randn(2, 7))
    assert len(seen) == 5
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_mixed_precision_draws_nearly_the_same_and_gives_float32():
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig((16, 16, 8), style_dim=16, mapping_layers=4))
    w = generator.mapping(torch.randn(2, 16)).requires_grad_()
    exact = generator.synthesis(w)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = generator.synthesis(w)
    assert drawn.dtype == torch.float32
    assert (drawn - exact).abs().mean() < 0.02 * exact.std()
    slopes = [torch.autograd.grad(picture.square().sum(), w)[0] for picture in (exact, drawn)]
    assert torch.nn.functional.cosine_similarity(*slopes).min() > 0.99


class TestSizes:
    @pytest.mark.parametrize("side", [64, 128, 256, 512, 1024])
    def test_pictures_of_every_published_size(self, side):
        with torch.device("meta"):
            generator = Generator(GeneratorConfig.standard(side))
            assert generator(torch.empty(2, 512)).shape == (2, 3, side, side)

    def test_the_size_for_1024_pixels(self):
        full = GeneratorConfig.standard(1024)
        assert full.channels == (512, 512, 512, 512, 512, 256, 128, 64, 32)
        assert (full.size, full.codes, full.style_dim, full.mapping_layers) == (1024, 18, 512, 8)
        assert GeneratorConfig.standard(256, multiplier=1).channels == (512, 512, 512, 512, 256, 128, 64)
        with torch.device("meta"):
            count = sum(p.numel() for p in Generator(full).parameters())
        assert count == 30_370_060

    def test_sizes_are_read_off_the_shapes(self):
        for config in (SMALL, GeneratorConfig((4, 4), 3, 1), GeneratorConfig((8, 6, 4, 2, 2), 16, 5)):
            assert GeneratorConfig.of(Generator(config).state_dict()) == config

    def test_a_size_that_is_no_power_of_two(self):
        with pytest.raises(ValueError, match="size must be a power of two from 8 to 1024, got 100"):
            GeneratorConfig.standard(100)

    def test_one_resolution(self):
        with pytest.raises(ValueError, match="at least two resolutions"):
            Generator(GeneratorConfig((4,), 4, 1))


class TestLayers:
    def test_codes_by_resolution(self):
        with torch.device("meta"):
            generator = Generator(GeneratorConfig.standard(1024))
        sides = [generator.resolution(i) for i in generator.codes()]
        assert sides == [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024, 1024]
        groups = [generator.codes(group) for group in ("coarse", "middle", "fine")]
        assert groups == [range(3), range(3, 7), range(7, 18)]
        assert Generator(SMALL).codes("fine") == range(0)

    def test_a_code_styles_its_layer(self):
        generator = untamed(SMALL)
        codes, seen = random(1, SMALL.codes, 7), []
        for i in generator.codes():
            generator.layer(i).register_forward_hook(lambda _, args, __: seen.append(args[1]))
        generator.synthesis(codes)
        # the RGB output of the last code comes last, as its layer does
        assert torch.equal(torch.stack(seen, 1), codes)
        with pytest.raises(ValueError, match="code must be from 0 to 5, got 6"):
            generator.layer(6)

    def test_mixing_takes_rows_of_another_code(self):
        generator = untamed(SMALL)
        w, other = random(2, 7), random(2, 7, seed=5)
        mixed = generator.mix(w, other, [0, 3])
        for i, row in enumerate(mixed.unbind(1)):
            assert torch.equal(row, other if i in (0, 3) else w)
        # a style changes nothing before its layer
        mixed = generator.mix(w, other, generator.codes("middle"))
        first, last = ([generator.synthesis(v, size=side) for v in (w, mixed)] for side in (4, 16))
        torch.testing.assert_close(*first)
        assert not torch.allclose(*last)
        assert torch.equal(generator.mix(w, other, []), w[:, None].expand(-1, SMALL.codes, -1))

    def test_chosen_layers_alone_are_trained(self):
        generator = Generator(SMALL).requires_grad_(False)
        generator.layer(2).requires_grad_()
        generator(torch.randn(2, 7)).sum().backward()
        trained = {name for name, p in generator.named_parameters() if p.grad is not None}
        assert trained == {name for name, _ in generator.named_parameters() if name.startswith("convs.1.")}

    def test_stopping_early_gives_the_rgb_of_that_side(self):
        generator = untamed(SMALL)
        w = random(1, 7)
        assert [generator.synthesis(w, size=s).shape[-1] for s in (4, 8, 16)] == [4, 8, 16]
        assert torch.equal(generator.synthesis(w, size=16), generator.synthesis(w))
        with pytest.raises(ValueError, match="size must be one of 4, 8, 16, got 32"):
            generator.synthesis(w, size=32)


class TestNoise:
    def test_fixed_is_the_same_and_random_is_not(self):
        generator, w = untamed(SMALL), random(2, 7)
        assert torch.equal(generator.synthesis(w), generator.synthesis(w, noise="fixed"))
        draws = [
            generator.synthesis(w, noise="random", generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
        assert torch.equal(draws[0], draws[1])
        assert not torch.allclose(draws[0], draws[2])

    def test_given_noise(self):
        generator, w = untamed(SMALL), random(2, 7)
        buffers = list(generator.noises.buffers())
        assert torch.equal(generator.synthesis(w, noise=buffers), generator.synthesis(w))
        silent = generator.synthesis(w, noise=[torch.zeros_like(n) for n in buffers])
        torch.testing.assert_close(silent, generator.synthesis(w, noise="none"))
        with pytest.raises(ValueError, match="noise must hold 5 tensors, one for each convolution, got 1"):
            generator.synthesis(w, noise=buffers[:1])
        with pytest.raises(ValueError, match="noise must be one of fixed, random, none, got 'some'"):
            generator.synthesis(w, noise="some")


class TestTruncation:
    def test_between_mean_and_code(self):
        generator = untamed(SMALL)
        w = random(3, 7)
        assert torch.equal(generator.truncate(w, 1.0), w)
        torch.testing.assert_close(generator.truncate(w, 0.0), generator.latent_avg.expand(3, -1))
        half = generator.truncate(w, 0.5)
        torch.testing.assert_close(half, (w + generator.latent_avg) / 2)
        coarse = generator.truncate(w, 0.5, codes=generator.codes("coarse"))
        assert torch.equal(coarse[:, 3:], w[:, None].expand(-1, 3, -1))
        torch.testing.assert_close(coarse[:, :3], half[:, None].expand(-1, 3, -1))

    def test_mean_latent_is_the_mean(self):
        generator = Generator(SMALL)
        mean = generator.mean_latent(20_000, generator=torch.Generator().manual_seed(0))
        other = generator.mean_latent(20_000, generator=torch.Generator().manual_seed(1))
        spread = generator.mapping(torch.randn(1000, 7)).std(0)
        assert mean.shape == (7,)
        assert ((mean - other).abs() < 0.05 * spread + 1e-4).all()

    def test_an_unknown_mean(self):
        with pytest.raises(ValueError, match=r"truncation needs latent_avg, which is zero; set it from mean"):
            Generator(SMALL)(torch.randn(1, 7), truncation=0.7)


@pytest.mark.parametrize("shape", [(7,), (2, 6), (2, 5, 7), (1, 6, 7, 1)])
def test_codes_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"w must have shape \(B, 7\) or \(B, 6, 7\), got"):
        Generator(SMALL).synthesis(torch.zeros(shape))


def test_z_of_another_shape():
    with pytest.raises(ValueError, match=r"z must have shape \(B, 7\), got \(2, 8\)"):
        Generator(SMALL).mapping(torch.zeros(2, 8))
