"""The folder of a training of the world's models, which has its own checkpoints and resumes by itself."""

from .folder import RunFolder

STAGES = "(clean|longer|captions|robust|vae|tiny|text|text_1|text_2|unet|transformer|generator)"


class TrainingFolder(RunFolder):
    """Where a model is trained; ``path`` need not exist yet."""

    command = "world train"
    remedy = "choose another folder"
    names = (
        rf"{STAGES}\.ckpt",
        rf"{STAGES}\.log\.jsonl",
        r"(vae|tiny)\.json",
        r"latents\.pt",
        r"world-[a-z-]+(\.safetensors|\.json|\.record\.json)",
        r"(vae|vae_tiny|world-diffusion|world-flow)/[^/]+",
    )

    def begun(self) -> bool:
        """Whether a training is there, to be continued."""
        return any(self.path.glob("*.ckpt"))
