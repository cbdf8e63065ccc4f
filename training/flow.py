"""Train the world's flow model: ``python -m training.flow --vae runs/vae --out runs/flow``.

First two small text towers learn to say which attributes a caption names; then, with the towers frozen, a
transformer learns the velocity in the latents of the autoencoder that ``training.vae`` made; all are exported
as a StableDiffusion3Pipeline without T5: x_s = (1 - s) x_0 + s noise, and the velocity is noise - x_0.

Every step draws its data and noise from (seed, stage, step), so a run resumed from its checkpoint ends in the
same weights, to the bit, as one never interrupted (on the same machine, with the same number of threads).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from geokernels.models.embedded import embedded

from .diffusion_data import build_tokenizer, captions_of, encoded_renders
from .flow_text import Captions, Counted
from .on_latents import train_on_latents
from .records import write_record
from .steps import Stage, facts_of, rate
from .text import Reading, build_heads, build_tower, freeze, rows_and_pooled


@dataclass(frozen=True)
class Config:
    """Sizes, steps and rates. The shipped weights were made with the defaults."""

    seed: int = 0
    picture: int = 64
    patch: int = 2
    width: int = 128
    layers: int = 7
    heads: int = 4
    largest: int = 16  # patches along a side that positions are known for
    text_widths: tuple[int, int] = (48, 64)
    text_layers: int = 3  # what the transformer reads stands before the last
    text_heads: int = 4
    joint: int = 128  # a text row's length; what the towers leave of it is zero, as beside T5
    text_batch: int = 64
    text_steps: int = 500
    text_peak: float = 1e-3
    renders: int = 32768
    batch: int = 32
    steps: int = 16000
    peak: float = 1e-3
    warm: int = 500
    hold: int = 4000  # steps at the peak rate
    mixed: bool = True  # products of the transformer in bfloat16, for processors that multiply in it
    compiled: bool = True
    silent: float = 0.1  # share of empty captions, for classifier-free guidance
    unpadded: float = 0.5  # share of captions without the rows of zeros in T5's place
    average: float = 0.999
    save_every: int = 50


QUICK = Config(
    width=16,
    layers=2,
    heads=2,
    largest=8,
    text_widths=(8, 12),
    text_layers=2,
    text_heads=2,
    joint=24,
    text_batch=8,
    text_steps=3,
    renders=16,
    batch=4,
    steps=6,
    warm=1,
    hold=1,
    compiled=False,
    save_every=2,
)


def build_transformer(config: Config, latent: int) -> SD3Transformer2DModel:
    """A transformer at random whose every block, and whose velocity, is zero to begin with."""
    transformer = SD3Transformer2DModel(
        sample_size=latent,
        patch_size=config.patch,
        in_channels=4,
        out_channels=4,
        num_layers=config.layers,
        attention_head_dim=config.width // config.heads,
        num_attention_heads=config.heads,
        joint_attention_dim=config.joint,
        caption_projection_dim=config.width,
        pooled_projection_dim=sum(config.text_widths),
        pos_embed_max_size=config.largest,
        qk_norm="rms_norm",
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    # shifts, scales and gates of every block, as a DiT begins (Peebles and Xie 2023)
    gates = [part for block in transformer.transformer_blocks for part in (block.norm1, block.norm1_context)]
    for linear in (*(part.linear for part in gates), transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(linear.weight)
    return transformer


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Levels evenly spread: sixteen by sixteen latents need no shift towards noise."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def levels(n: int, *, generator: torch.Generator) -> Tensor:
    """Noise levels s (n,) whose logit is normal, one from each n-th of the distribution."""
    place = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return torch.special.ndtri(place.clamp(1e-6, 1 - 1e-6)).sigmoid()


class Velocity:
    """The loss of one step, on latents that were encoded beforehand."""

    def __init__(
        self, config: Config, transformer, captions: Captions, latents: Tensor, values: Tensor
    ) -> None:
        self.config, self.transformer, self.captions = config, transformer, captions
        self.latents, self.values = latents, values

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error of the velocity."""
        config, n = self.config, self.config.batch
        chosen = torch.randint(len(self.latents), (n,), generator=generator)
        prompts, _ = captions_of(self.values[chosen], silent=config.silent, generator=generator)
        clean = self.latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        level = levels(n, generator=generator)
        words = self.captions(prompts, unpadded=config.unpadded, generator=generator)
        s = level.view(-1, 1, 1, 1)
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=config.mixed)
        with mixed, Counted(words.counts, patches=clean[0, 0].numel() // config.patch**2):
            velocity = self.transformer(
                (1 - s) * clean + s * noise,
                encoder_hidden_states=words.rows,
                pooled_projections=words.pooled,
                timestep=1000 * level,
            ).sample
        return {"v": (velocity.float() - (noise - clean)).square().mean()}


def assemble(vae, transformer, towers, tokenizer) -> StableDiffusion3Pipeline:
    """The pipeline of these parts, without T5."""
    return StableDiffusion3Pipeline(
        vae=vae.eval(),
        transformer=transformer.eval(),
        text_encoder=towers[0].eval(),
        tokenizer=tokenizer,
        text_encoder_2=towers[1].eval(),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
        scheduler=build_scheduler(),
    )


class Training:
    """The text towers, the transformer on ``vae``'s latents, and the stages that train them in a folder."""

    def __init__(self, config: Config, vae: AutoencoderKL, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.vae, self.out = config, vae, out
        # Stable Diffusion 3 shifts latents too; those of this autoencoder have their mean at zero already
        vae.register_to_config(shift_factor=0.0)
        self.tokenizer = build_tokenizer()
        latent = config.picture // 2 ** (len(vae.config.block_out_channels) - 1)
        self.transformer = build_transformer(config, latent)
        self.towers, self.heads, self.readings = [], [], []
        for i, width in enumerate(config.text_widths):
            sizes = {"width": width, "layers": config.text_layers, "heads": config.text_heads}
            self.towers.append(build_tower(CLIPTextModelWithProjection, self.tokenizer, **sizes))
            self.heads.append(build_heads(width, views=2))
            parts = {"tower": self.towers[i], "heads": self.heads[i]}
            self.readings.append(Stage(f"text_{i + 1}", parts, out, decay=0.01))
        self.stage = Stage(
            "transformer", {"transformer": self.transformer}, out, decay=0.01, average=config.average
        )

    def run(self, *, quiet: bool = False) -> None:
        """Train what is left to train."""
        config = self.config
        shared = {"seed": config.seed, "save_every": config.save_every, "quiet": quiet}
        for tower, heads, stage in zip(self.towers, self.heads, self.readings):
            stage.run(
                config.text_steps,
                Reading(tower.train(), heads, self.tokenizer, rows_and_pooled, batch=config.text_batch),
                rate=lambda step: rate(step, config.text_steps, config.text_peak, warm=1),
                **shared,
            )
        self.freeze_text()
        latents, values = encoded_renders(
            self.vae, config.renders, size=config.picture, seed=config.seed, keep=self.out / "latents.pt"
        )
        captions = Captions(self.tokenizer, self.towers, width=config.joint)
        if config.compiled:
            self.transformer.compile()
        self.stage.run(
            config.steps,
            Velocity(config, self.transformer.train(), captions, latents, values),
            rate=lambda step: rate(step, config.steps, config.peak, warm=config.warm, hold=config.hold),
            **shared,
        )

    def freeze_text(self) -> None:
        """Make the text towers what is shipped."""
        for tower in self.towers:
            freeze(tower, self.tokenizer)

    def export(self, folder: Path, vae_folder: Path) -> Path:
        """Write the pipeline of the averaged transformer in half precision, and a record."""
        self.stage.averaged()
        self.freeze_text()
        # each by itself: the pipeline's own conversion warns about layers that none of these has
        for part in (self.vae, self.transformer, *self.towers):
            part.half()
        self.vae.register_to_config(_name_or_path="")  # not the folder it was read from
        assemble(self.vae, self.transformer, self.towers, self.tokenizer).save_pretrained(folder)
        for name in ("tokenizer", "tokenizer_2"):
            # for readers older than tokenizer.json
            self.tokenizer.backend_tokenizer.model.save(str(folder / name))
        config, made = self.config, {"vae": vae_facts(vae_folder)}
        for stage, batch in (*((s, config.text_batch) for s in self.readings), (self.stage, config.batch)):
            made[stage.name] = facts_of(stage, batch, config)
        write_record(folder, made)
        return folder


def vae_facts(folder: Path) -> dict:
    """How the autoencoder came about: from its training's folder, or the record of a pipeline that has it."""
    if (folder / "vae.json").is_file():
        return json.loads((folder / "vae.json").read_text())
    return json.loads(folder.with_suffix(".record.json").read_text())["made"]["vae"]


def main() -> None:
    vae = embedded("world-diffusion")
    train_on_latents(__doc__, Training, Config(), QUICK, name="world-flow", vae=vae)


if __name__ == "__main__":
    main()
