"""GeoCLIP is the geodesic cosine between the subspaces of the published code."""

import numpy as np
import pytest
import torch

from geokernels.compat.geodesic_clip import GeoCLIP
from geokernels.testing import cloud


def by_quadrature(x, y, rank):
    """The cosine in the integral of the geodesic's projectors, 24 Gauss-Legendre nodes."""
    unit = [z / z.norm(dim=-1, keepdim=True) for z in (x, y)]
    P, Q = (torch.linalg.svd((z - z.mean(-1, keepdim=True)).mT)[0][:, :rank] for z in unit)
    U, cosines, Vh = torch.linalg.svd(P.mT @ Q)
    angles = cosines.clamp(max=1).acos()
    start = P @ U
    turn = (Q @ Vh.mT - start * cosines) / angles.sin()
    nodes, shares = np.polynomial.legendre.leggauss(24)
    G = 0
    for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
        basis = start * (node * angles).cos() + turn * (node * angles).sin()
        G = G + share * basis @ basis.mT
    product = [(u @ G * v).sum(-1) for u, v in ((x, y), (x, x), (y, y))]
    return product[0] / (product[1] * product[2]).sqrt()


@pytest.mark.parametrize("B, rank", [(1, 1), (2, 2), (3, 1), (7, 5)])
def test_is_the_integral(B, rank):
    x, y = cloud(B, 24, seed=0), cloud(B, 24, seed=1)
    found = GeoCLIP().fit(3 * x, y)
    assert found.shape == (B,)
    torch.testing.assert_close(found, by_quadrature(x, y, rank), rtol=1e-9, atol=1e-10)


def test_limits_ranks():
    x, y = cloud(9, 20, seed=0), cloud(9, 20, seed=1)
    torch.testing.assert_close(GeoCLIP(source_dim=3, target_dim=3).fit(x, y), by_quadrature(x, y, 3))


def test_gradient_takes_the_kernel_for_constant():
    x, y = cloud(5, 12, seed=0).requires_grad_(), cloud(5, 12, seed=1).requires_grad_()
    found = torch.autograd.grad(GeoCLIP().fit(x, y).sum(), (x, y))
    # only the own row of a pair moves its cosine, and a longer row none
    for gradient, rows in zip(found, (x, y), strict=True):
        assert (gradient * rows).sum(-1).abs().max() < 1e-10
        assert (gradient != 0).any(-1).all()
    alone = torch.autograd.grad(GeoCLIP().fit(x, y)[2], x)[0]
    assert (alone[[0, 1, 3, 4]] == 0).all()


def test_repeats_and_batches():
    x, y = cloud(2, 6, 16, seed=0).float(), cloud(2, 6, 16, seed=1).float()
    loss = GeoCLIP(dim=4)
    assert torch.equal(loss.fit(x, y), loss.fit(x, y))
    torch.testing.assert_close(loss.fit(x, y)[1], loss.fit(x[1], y[1]))


def test_degenerate_features_are_finite():
    x = cloud(6, 16, seed=0).float()
    x[1] = x[0]
    x[2] = 0
    x.requires_grad_()
    scores = GeoCLIP().fit(x.detach(), x)
    assert scores[2] == 0
    torch.testing.assert_close(scores[3:], torch.ones(3))
    scores.sum().backward()
    assert x.grad.isfinite().all()


def test_refuses():
    with pytest.raises(ValueError, match="y must have shape"):
        GeoCLIP().fit(torch.ones(3, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match="source_dim must be at least 1, got 0"):
        GeoCLIP(source_dim=0)
