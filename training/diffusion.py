"""Train the world's diffusion model: ``python -m training.diffusion --vae runs/vae --out runs/diffusion``.

A U-Net and its own small text tower learn together, in the latents of the autoencoder that ``training.vae``
made, and are exported as a StableDiffusionPipeline. The model predicts v on a schedule that ends in noise
alone (zero terminal SNR): otherwise the mean colour leaks through the noisiest step, and the U-Net never
learns to choose it.

Every step draws its data and noise from (seed, stage, step), so a run resumed from its checkpoint ends in the
same weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import argparse
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from geokernels.world import WORDS

from .diffusion_data import CONTEXT, build_tokenizer, captions_of, encoded_renders, tokenize
from .steps import Stage
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
    renders: int = 20480
    batch: int = 16
    steps: int = 16000
    peak: float = 1e-3
    flat: float = 0.6  # share of the steps at the peak rate
    silent: float = 0.1  # share of empty captions, for classifier-free guidance
    largest_snr: float = 5.0  # beyond it, easy steps count no more
    average: float = 0.999
    save_every: int = 100


QUICK = Config(
    widths=(8, 16), groups=4, heads=2, text_width=8, text_layers=1, renders=16, batch=4, steps=4, save_every=2
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


def build_text(config: Config, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.text_width,
        intermediate_size=4 * config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.heads,
        max_position_embeddings=CONTEXT,
        projection_dim=config.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = CLIPTextModel(settings)
    # transformers' initial 0.02 would leave all words alike for long
    nn.init.normal_(text.embeddings.token_embedding.weight, std=0.5)
    nn.init.normal_(text.embeddings.position_embedding.weight, std=0.1)
    return text


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
        prompts = captions_of(self.values[rows], silent=self.config.silent, generator=generator)
        clean = self.latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        # one step from each n-th of the schedule
        place = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        step = (place * len(self.signal)).long().clamp(max=len(self.signal) - 1)
        signal = self.signal[step].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        target = signal.sqrt() * noise - (1 - signal).sqrt() * clean
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
    """The U-Net, its text tower, and the stage that trains them on ``vae``'s latents in a folder."""

    def __init__(self, config: Config, vae: AutoencoderKL, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.vae, self.out = config, vae, out
        self.tokenizer = build_tokenizer()
        latent = config.picture // 2 ** (len(vae.config.block_out_channels) - 1)
        self.unet, self.text = build_unet(config, latent), build_text(config, self.tokenizer)
        modules = {"unet": self.unet, "text": self.text}
        self.stage = Stage("diffusion", modules, out, decay=0.01, average=config.average)

    def run(self, *, quiet: bool = False) -> None:
        """Train what is left to train."""
        config = self.config
        latents, values = encoded_renders(
            self.vae, config.renders, size=config.picture, seed=config.seed, keep=self.out / "latents.pt"
        )
        self.stage.run(
            config.steps,
            config.peak,
            Denoising(config, self.unet.train(), self.text.train(), self.tokenizer, latents, values),
            seed=config.seed,
            save_every=config.save_every,
            quiet=quiet,
            flat=config.flat,
        )

    def export(self, folder: Path, vae_folder: Path) -> Path:
        """Write the pipeline of averaged weights in half precision, the tiny autoencoder and a record."""
        self.stage.averaged()
        used = tokenize(self.tokenizer, sorted(WORDS)).unique()
        read = torch.zeros(len(self.tokenizer), 1).index_fill_(0, used, 1.0)
        # rows that were never trained are zero, and so tell what the model has read
        self.text.embeddings.token_embedding.weight.data.mul_(read)
        # each by itself: the pipeline's own conversion warns about layers that none of these has
        for part in (self.vae, self.unet, self.text):
            part.half()
        assemble(self.vae, self.unet, self.text, self.tokenizer).save_pretrained(folder)
        # for readers older than tokenizer.json
        self.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
        shutil.copytree(vae_folder / "vae_tiny", folder / "vae_tiny", dirs_exist_ok=True)
        made = {k: json.loads((vae_folder / f"{k}.json").read_text()) for k in ("vae", "tiny")}
        stage = self.stage
        made["diffusion"] = {
            "steps": stage.step,
            "seconds": round(stage.seconds),
            "config": asdict(self.config),
        }
        write_record(folder, made)
        return folder


def write_record(folder: Path, made: dict) -> None:
    """Beside ``folder``: how it was made, and the digest of each of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors writes for its owner alone
    record = {
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "made": made,
    }
    partial = folder.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, folder.with_suffix(".record.json"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vae", type=Path, required=True, help="folder that training.vae wrote to")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; resumes there")
    parser.add_argument("--export", action="store_true", help="write the pipeline as it stands, do not train")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = replace(QUICK if arguments.quick else Config(), seed=arguments.seed)
    vae = AutoencoderKL.from_pretrained(arguments.vae / "vae", dtype=torch.float32)
    training = Training(config, vae.requires_grad_(False).eval(), arguments.out)
    if not arguments.export:
        training.run()
    print(training.export(arguments.out / "world-diffusion", arguments.vae))


if __name__ == "__main__":
    main()
