"""Tiny models that guide and draw in milliseconds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geokernels.models import Generator, GeneratorConfig, load_diffusion


class TinyEncoder(nn.Module):
    """What the pipelines use of a CLIP, of random weights; counts the pictures that it is shown."""

    embedded = True  # so that what names no recipe has the world's small settings

    def __init__(self, name="tiny", *, image_size=8, dim=12, seed=0):
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.name, self.guides, self.image_size, self.dim, self.shown = name, True, image_size, dim, 0
        self.first = torch.randn(6, 3, 3, 3, generator=chance)
        self.last = torch.randn(6 * 16, dim, generator=chance)

    def image_features(self, pictures, *, clamp=True):
        size = (self.image_size, self.image_size)
        seen = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
        return [F.conv2d(seen - 0.5, self.first, padding=1).tanh()]

    def encode_image(self, pictures, *, clamp=True):
        self.shown += len(pictures)
        pooled = F.adaptive_avg_pool2d(self.image_features(pictures)[0], 4)
        return F.normalize(pooled.flatten(1) @ self.last, dim=-1)

    def encode_image_and_tokens(self, pictures):
        features, maps = self.encode_image(pictures), self.image_features(pictures)[0]
        return features, F.adaptive_avg_pool2d(maps, 4).flatten(2).mT

    def unknown_words(self, prompt):
        return []

    def encode_text(self, prompts, templates=("{}",)):
        rows = []
        for text in (template.format(prompt) for prompt in prompts for template in templates):
            chance = torch.Generator().manual_seed(sum(map(ord, text)))
            rows.append(torch.randn(self.dim, generator=chance))
        return F.normalize(torch.stack(rows), dim=-1).view(len(prompts), len(templates), self.dim)


@pytest.fixture
def tiny_encoder():
    return TinyEncoder


@pytest.fixture
def tiny_generator():
    torch.manual_seed(3)
    generator = Generator(GeneratorConfig(channels=(8, 6, 4), style_dim=7, mapping_layers=2)).eval()
    generator.embedded = True
    generator.latent_avg.copy_(generator.mean_latent(64, generator=torch.Generator().manual_seed(0)))
    return generator


class ExactEncoder(nn.Module):
    """A CLIP's face on random weights, in any precision."""

    image_size = 24
    name = "random"
    embedded = True

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(3 * self.image_size**2, 6, generator=generator, dtype=torch.float64)
        self.weight = weight.to(dtype)

    def encode_image(self, pictures):
        pixels = pictures.to(self.weight.dtype).flatten(1)
        return F.normalize((3 * pixels).sin() @ self.weight, dim=-1)

    def encode_text(self, prompts):
        rows = [
            torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, p))), dtype=torch.float64)
            for p in prompts
        ]
        return F.normalize(torch.stack(rows), dim=-1)[:, None].to(self.weight.dtype)


@pytest.fixture
def encoder():
    return ExactEncoder(torch.float64)


@pytest.fixture
def single_encoder():
    return ExactEncoder(torch.float32)


@pytest.fixture(scope="session")
def exact_pipeline(pipeline_folder):
    """The random pipeline in float64; nobody may change it."""
    pipeline = load_diffusion(pipeline_folder, dtype=torch.float64)
    # residual branches of random weights hardly matter; larger ones make every term of a loss on them count
    with torch.no_grad():
        for name, weight in pipeline.unet.named_parameters():
            if name.endswith("conv2.weight"):
                weight.mul_(6)
    return pipeline


@pytest.fixture(scope="module")
def exact(random_pipeline):
    """A pipeline of a kind in float64; nobody may change it."""
    loaded = {}

    def of(kind: str):
        if kind not in loaded:
            loaded[kind] = load_diffusion(random_pipeline(kind), dtype=torch.float64)
        return loaded[kind]

    return of
