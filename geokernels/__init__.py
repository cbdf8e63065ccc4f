"""The geometry inside CLIP-guided morphing and diffusion editing: fast, exact and differentiable."""
