"""Train the world's diffusion model: ``python -m training.diffusion --vae runs/vae --out runs/diffusion``.

First a small text tower learns to say which attributes a caption names; then, with the tower frozen, a U-Net
learns in the latents of the autoencoder that ``training.vae`` made; both are exported as a
StableDiffusionPipeline. The model predicts v on a schedule that ends in noise
alone (zero terminal SNR): otherwise the mean colour leaks through the noisiest step, and the U-Net never
learns to choose it.

Every step draws its data and noise from (seed, stage, step), so a run resumed from its checkpoint ends in the
same weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from .diffusion_data import build_tokenizer, captions_of, encoded_renders, tokenize
from .on_latents import train_on_latents
from .records import write_record
from .steps import Stage, facts_of, rate
from .text import Reading, build_heads, build_tower, freeze, last_rows
from .vae import variance_preserving


@dataclass(frozen=True)
class Config:
    """Sizes, steps and rates. The shipped weights were made with the defaults."""

    seed: int = 0
    picture: int = 64
    widths: tuple[int, int] = (64, 128)
    groups: int = 16
    heads: int = 4
    text_width: int = 64
    text_layers: int = 2
    text_batch: int = 64
    text_steps: int = 500
    text_peak: float = 1e-3
    renders: int = 20480
    batch: int = 16
    steps: int = 10000
    peak: float = 1e-3
    warm: int = 320
    hold: int = 4680  # steps at the peak rate
    again: int = 10000  # more steps, with the rate begun anew
    again_peak: float = 7e-4
    silent: float = 0.1  # share of empty captions, for classifier-free guidance
    largest_snr: float = 5.0  # beyond it, easy steps count no more
    average: float = 0.999
    save_every: int = 100


QUICK = Config(
    widths=(8, 16),
    groups=4,
    heads=2,
    text_width=8,
    text_layers=1,
    text_batch=8,
    text_steps=3,
    renders=16,
    batch=4,
    steps=4,
    warm=1,
    hold=1,
    again=3,
    save_every=2,
)


def build_unet(config: Config, latent: int) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=latent,
        in_channels=4,
        out_channels=4,
        block_out_channels=config.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # diffusers calls the number of heads so
        norm_num_groups=config.groups,
    )
    variance_preserving(unet)
    nn.init.zeros_(unet.conv_out.weight)
    return unet


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # as pipelines expect; without effect on trailing steps
    )


class Denoising:
    """The loss of one step, on latents that were encoded beforehand."""

    def __init__(self, config: Config, unet, text, tokenizer, latents: Tensor, values: Tensor) -> None:
        self.config, self.unet, self.text, self.tokenizer = config, unet, text, tokenizer
        self.latents, self.values = latents, values
        self.signal = build_scheduler().alphas_cumprod

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared error of v, weighted."""
        n = self.config.batch
        rows = torch.randint(len(self.latents), (n,), generator=generator)
        prompts, _ = captions_of(self.values[rows], silent=self.config.silent, generator=generator)
        clean = self.latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        # one step from each n-th of the schedule
        place = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        step = (place * len(self.signal)).long().clamp(max=len(self.signal) - 1)
        signal = self.signal[step].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        target = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        with torch.no_grad():
            words = self.text(tokenize(self.tokenizer, prompts)).last_hidden_state
        error = self.unet(noisy, step, words).sample - target
        # the error of v is (snr + 1) times that of the clean latents; count it at most largest_snr + 1 times
        snr = signal / (1 - signal)
        weight = snr.clamp(max=self.config.largest_snr).add(1) / (snr + 1)
        return {"v": (weight * error.square()).mean()}


def assemble(vae, unet, text, tokenizer) -> StableDiffusionPipeline:
    """The pipeline of these parts."""
    return StableDiffusionPipeline(
        vae=vae.eval(),
        unet=unet.eval(),
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class Training:
    """The text tower, the U-Net on ``vae``'s latents, and the stages that train them in a folder."""

    def __init__(self, config: Config, vae: AutoencoderKL, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.vae, self.out = config, vae, out
        self.tokenizer = build_tokenizer()
        latent = config.picture // 2 ** (len(vae.config.block_out_channels) - 1)
        self.unet = build_unet(config, latent)
        sizes = {"width": config.text_width, "layers": config.text_layers, "heads": config.heads}
        self.text = build_tower(CLIPTextModel, self.tokenizer, **sizes)
        self.heads = build_heads(config.text_width, views=1)
        reader = {"text": self.text, "heads": self.heads}
        self.reading = Stage("text", reader, out, decay=0.01, average=0.0)
        self.stage = Stage("unet", {"unet": self.unet}, out, decay=0.01, average=config.average)

    def run(self, *, quiet: bool = False) -> None:
        """Train what is left to train."""
        config = self.config
        shared = {"seed": config.seed, "save_every": config.save_every, "quiet": quiet}
        self.reading.run(
            config.text_steps,
            Reading(self.text.train(), self.heads, self.tokenizer, last_rows, batch=config.text_batch),
            rate=lambda step: rate(step, config.text_steps, config.text_peak, warm=1),
            **shared,
        )
        freeze(self.text, self.tokenizer)
        latents, values = encoded_renders(
            self.vae, config.renders, size=config.picture, seed=config.seed, keep=self.out / "latents.pt"
        )
        denoising = Denoising(config, self.unet.train(), self.text, self.tokenizer, latents, values)
        self.stage.run(config.steps + config.again, denoising, rate=self.rate, **shared)

    def rate(self, step: int) -> float:
        """The U-Net's learning rate: shapes come while it falls, so it rises and falls twice."""
        config = self.config
        if step < config.steps:
            return rate(step, config.steps, config.peak, warm=config.warm, hold=config.hold)
        return rate(step - config.steps, config.again, config.again_peak, warm=config.warm)

    def export(self, folder: Path, vae_folder: Path) -> Path:
        """Write the pipeline of the averaged U-Net in half precision, the tiny autoencoder and a record."""
        self.stage.averaged()
        freeze(self.text, self.tokenizer)
        # each by itself: the pipeline's own conversion warns about layers that none of these has
        for part in (self.vae, self.unet, self.text):
            part.half()
        self.vae.register_to_config(_name_or_path="")  # not the folder it was read from
        assemble(self.vae, self.unet, self.text, self.tokenizer).save_pretrained(folder)
        # for readers older than tokenizer.json
        self.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
        shutil.copytree(vae_folder / "vae_tiny", folder / "vae_tiny", dirs_exist_ok=True)
        made = {k: json.loads((vae_folder / f"{k}.json").read_text()) for k in ("vae", "tiny")}
        config = self.config
        for stage, batch in (self.reading, config.text_batch), (self.stage, config.batch):
            made[stage.name] = facts_of(stage, batch, config)
        write_record(folder, made)
        return folder


def main() -> None:
    train_on_latents(__doc__, Training, Config(), QUICK, name="world-diffusion")


if __name__ == "__main__":
    main()
