"""Randomly initialised text-to-picture pipelines of every kind, tiny, saved in the real folder formats."""

import string
from pathlib import Path

import diffusers
import torch
import transformers

SIDE = 16  # of the latents; the autoencoders halve a picture's side twice
WIDTH = 8  # of text features
FLOWS = ("StableDiffusion3Pipeline", "FluxPipeline", "distilled")
FLOW_LATENTS = {"shift_factor": 0.06, "scaling_factor": 1.5}  # as released: neither is 0 or 1


def save_random_pipeline(kind: str, folder: str | Path) -> Path:
    """Save a pipeline of class ``kind`` that reads any lower-case text; the same weights every time.

    ``"distilled"`` is a FluxPipeline that reads its guidance scale, and shifts its levels by resolution.
    """
    torch.manual_seed(0)
    parts = {"vae": _vae(**({"channels": 16, **FLOW_LATENTS} if kind in FLOWS else {})), **_PARTS[kind]()}
    parts = {k: v.eval() if isinstance(v, torch.nn.Module) else v for k, v in parts.items()}
    getattr(diffusers, "FluxPipeline" if kind == "distilled" else kind)(**parts).save_pretrained(folder)
    return Path(folder)


def _vae(channels: int = 4, **latents):
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        latent_channels=channels,
        sample_size=4 * SIDE,
        **{"shift_factor": 0.0, **latents},
    )


def clip_tokenizer():
    """Letters alone, 77 rows."""
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    words = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77)


def clip_text(kind=transformers.CLIPTextModel, width: int = WIDTH):
    """A text encoder for :func:`clip_tokenizer`."""
    size = 2 * len(string.ascii_lowercase)
    return kind(
        transformers.CLIPTextConfig(
            vocab_size=size + 2,
            hidden_size=width,
            intermediate_size=width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=size,
            eos_token_id=size + 1,
            pad_token_id=size + 1,
        )
    )


def t5_tokenizer():
    """Letters alone, up to 512 rows."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_lowercase]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_text(width: int):
    """A text encoder for :func:`t5_tokenizer`."""
    settings = transformers.T5Config(
        vocab_size=4 + len(string.ascii_lowercase), d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(settings)


def _unet(**more):
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=2,
        **more,
    )


def _stable_diffusion() -> dict:
    return {
        "unet": _unet(cross_attention_dim=WIDTH),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _instruct_pix2pix() -> dict:
    # it sees the picture to edit beside the latents
    return {**_stable_diffusion(), "unet": _unet(cross_attention_dim=WIDTH, in_channels=8)}


def _stable_diffusion_xl() -> dict:
    return {
        "unet": _unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=WIDTH + 6 * 4,
        ),
        "text_encoder": clip_text(),
        "text_encoder_2": clip_text(transformers.CLIPTextModelWithProjection),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
    }


def _pixart() -> dict:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=SIDE,
        use_additional_conditions=False,
    )
    # as released, but not zero: a fresh transformer ignores its text
    torch.nn.init.normal_(transformer.proj_out.weight)
    return {
        "transformer": transformer,
        "text_encoder": t5_text(WIDTH),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(),
    }


def _stable_diffusion_3() -> dict:
    return {
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=SIDE,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=4,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=8,
            pooled_projection_dim=2 * WIDTH,
            out_channels=16,
        ),
        "text_encoder": clip_text(transformers.CLIPTextModelWithProjection),
        "text_encoder_2": clip_text(transformers.CLIPTextModelWithProjection),
        "text_encoder_3": t5_text(2 * WIDTH),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _flux(**more) -> dict:
    return {
        "transformer": diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            **more,
        ),
        "text_encoder": clip_text(),
        "text_encoder_2": t5_text(WIDTH),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }


def _distilled() -> dict:
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {**_flux(guidance_embeds=True), "scheduler": shifted}


_PARTS = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionInstructPix2PixPipeline": _instruct_pix2pix,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": _flux,
    "distilled": _distilled,
}
