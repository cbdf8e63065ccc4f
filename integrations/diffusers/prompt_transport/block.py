"""Transport between prompts as a block of diffusers' modular pipelines; see docs/hosts.md."""

from geokernels.pipelines import PromptTransportStep

__all__ = ["PromptTransportStep"]
