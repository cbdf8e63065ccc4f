"""Train the rendered world's autoencoders from nothing: ``python -m training.vae --out runs/vae``.

First diffusers' AutoencoderKL, which takes a picture to 16 x 16 latents of 4 channels and back; then, for its
latents as the U-Net sees them, an AutoencoderTiny that decodes several times faster.

Every step draws its own pictures from (seed, stage, step), so a run resumed from its checkpoint ends in the
same weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from geokernels._files import give_new_modes, write_json
from geokernels.world import render, sample_scenes

from .steps import Stage, chance, facts_of, rate

UNSEEN = 2**40  # seeds from here on are never drawn in training, whose seeds are hashes


@dataclass(frozen=True)
class Config:
    """Sizes, steps and rates. The shipped weights were made with the defaults."""

    seed: int = 0
    picture: int = 64
    widths: tuple[int, ...] = (16, 32, 64)
    groups: int = 8
    batch: int = 8
    steps: int = 3600
    warm: int = 72
    peak: float = 2e-3
    kl: float = 3e-4  # per latent, beside the squared error per colour value in [-1, 1]
    absolute: float = 0.05  # weight of the absolute error, which squared error neglects on even ground
    tiny_width: int = 32
    tiny_warm: int = 12
    tiny_steps: int = 600
    tiny_peak: float = 2e-3
    average: float = 0.995
    save_every: int = 100


QUICK = Config(
    widths=(8, 8, 8),
    groups=4,
    batch=4,
    warm=1,
    steps=4,
    tiny_width=8,
    tiny_warm=1,
    tiny_steps=3,
    save_every=2,
)


def build(config: Config) -> AutoencoderKL:
    levels = len(config.widths)
    vae = AutoencoderKL(
        sample_size=config.picture,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=config.groups,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    variance_preserving(vae)
    # unit noise would hide the first thing there is to learn
    nn.init.zeros_(vae.quant_conv.weight[4:])
    nn.init.constant_(vae.quant_conv.bias[4:], -6.0)
    return vae


def variance_preserving(network: nn.Module) -> None:
    """Initialise so that the input's scale survives to the last layer, and residual branches begin at zero.

    The customary initialisation loses nearly half of the scale in every convolution off the residual path;
    what comes out shows the biases rather than the input, and hundreds of steps are spent on mending it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)


def pictures(n: int, size: int, *, generator: torch.Generator) -> Tensor:
    """Renders in the range [-1, 1] of the autoencoders."""
    return render(sample_scenes(n, generator=generator), size) * 2 - 1


def vae_loss(config: Config, vae: AutoencoderKL, generator: torch.Generator) -> dict[str, Tensor]:
    """Squared and absolute error, and the divergence of the latents from a unit Gaussian."""
    x = pictures(config.batch, config.picture, generator=generator)
    posterior = vae.encode(x).latent_dist
    seen = vae.decode(posterior.sample(generator)).sample
    return {
        "squared": F.mse_loss(seen, x),
        "absolute": config.absolute * F.l1_loss(seen, x),
        "kl": config.kl * posterior.kl().mean() / posterior.mean[0].numel(),
    }


@torch.no_grad()
def decibels(decode_of, n: int, size: int, seed: int = UNSEEN) -> Tensor:
    """Peak signal-to-noise ratio of each of ``n`` unseen pictures after ``decode_of``, (n,)."""
    x = pictures(n, size, generator=torch.Generator().manual_seed(seed))
    seen = torch.cat([decode_of(part).clamp(-1, 1) for part in x.split(32)])
    return -10 * ((seen - x) / 2).square().mean((1, 2, 3)).log10()


class Following:
    """What the small autoencoder is asked for: the large one's scaled latents, and pictures from them."""

    def __init__(self, config: Config, tiny: AutoencoderTiny, vae: AutoencoderKL) -> None:
        self.config, self.tiny, self.vae = config, tiny, vae

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared errors of both halves."""
        x = pictures(self.config.batch, self.config.picture, generator=generator)
        with torch.no_grad():
            latents = self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor
        # a U-Net's latents are not exactly those of any picture
        near = latents + 0.05 * torch.randn(latents.shape, generator=generator)
        return {
            "encode": 0.1 * F.mse_loss(self.tiny.encoder(x), latents),
            "decode": F.mse_loss(self.tiny.decoder(near), x),
        }


def build_tiny(config: Config) -> AutoencoderTiny:
    widths = (config.tiny_width,) * 3
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )


def train_vae(config: Config, out: Path, *, quiet: bool = False) -> AutoencoderKL:
    """Train the AutoencoderKL in ``out``, or what is left; save it in half precision as ``out/vae``."""
    torch.manual_seed(config.seed)
    vae = build(config)
    stage = Stage("vae", {"vae": vae}, out, decay=0.0, average=config.average)

    def watch() -> dict[str, float]:
        quality = decibels(lambda x: vae.decode(vae.encode(x).latent_dist.mode()).sample, 64, config.picture)
        return {"dB": quality.mean().item(), "worst": quality.min().item()}

    stage.run(
        config.steps,
        lambda generator: vae_loss(config, vae, generator),
        rate=lambda step: rate(step, config.steps, config.peak, warm=config.warm),
        seed=config.seed,
        save_every=config.save_every,
        quiet=quiet,
        watch=watch,
    )
    stage.averaged()
    with torch.no_grad():
        x = pictures(512, config.picture, generator=chance(config.seed, "scale", 0))
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in x.split(32)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    vae.half().save_pretrained(out / "vae")
    give_new_modes((out / "vae").iterdir())
    _note(out / "vae.json", config, stage)
    # what is trained on top sees the weights as they are shipped
    return vae.float().requires_grad_(False).eval()


def train_tiny(config: Config, vae: AutoencoderKL, out: Path, *, quiet: bool = False) -> AutoencoderTiny:
    """Train the AutoencoderTiny for ``vae``'s latents in ``out``; save it as ``out/vae_tiny``."""
    torch.manual_seed(config.seed + 1)
    tiny = build_tiny(config)
    stage = Stage("tiny", {"tiny": tiny}, out, decay=0.0, average=config.average)

    def watch() -> dict[str, float]:
        quality = decibels(
            lambda x: tiny.decode(vae.encode(x).latent_dist.mode() * vae.config.scaling_factor).sample,
            64,
            config.picture,
        )
        return {"dB": quality.mean().item(), "worst": quality.min().item()}

    stage.run(
        config.tiny_steps,
        Following(config, tiny, vae),
        rate=lambda step: rate(step, config.tiny_steps, config.tiny_peak, warm=config.tiny_warm),
        seed=config.seed,
        save_every=config.save_every,
        quiet=quiet,
        watch=watch,
    )
    stage.averaged()
    tiny.half().save_pretrained(out / "vae_tiny")
    give_new_modes((out / "vae_tiny").iterdir())
    _note(out / "tiny.json", config, stage)
    return tiny.float().requires_grad_(False).eval()


def _note(path: Path, config: Config, stage: Stage) -> None:
    """How the weights beside it were made."""
    facts = facts_of(stage, config.batch, config)
    write_json(path, facts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints; resumes there")
    parser.add_argument(
        "--only", choices=("vae", "tiny"), help="one of the two; tiny needs the other's weights"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks for a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = replace(QUICK if arguments.quick else Config(), seed=arguments.seed)
    if arguments.only == "tiny":
        vae = AutoencoderKL.from_pretrained(arguments.out / "vae", dtype=torch.float32)
        vae.requires_grad_(False).eval()
    else:
        vae = train_vae(config, arguments.out)
    if arguments.only != "vae":
        train_tiny(config, vae, arguments.out)


if __name__ == "__main__":
    main()
