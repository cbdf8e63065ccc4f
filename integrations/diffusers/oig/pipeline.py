"""OIG as a custom pipeline of diffusers; see docs/hosts.md."""

# Under one name in every such file: diffusers loads each as the module "pipeline", into what the one before
# has left there, and refuses two names.
from geokernels.pipelines import OIGPipeline as CustomPipeline

__all__ = ["CustomPipeline"]
