"""The definitions of every operator, in plain PyTorch: exact in float64, differentiable by autograd."""
