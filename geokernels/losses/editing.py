"""What guides the edit of a picture on its way out of noise: move to the text, keep the structure."""

from collections.abc import Sequence

from torch import Tensor


def contrast_loss(image: Tensor, source: Tensor, target: Tensor, *, margin: float = 0.5) -> Tensor:
    r"""How far a picture is from being nearer to the target text than to the source text, by ``margin``.

    .. math:: \max(0, \cos(I, T_{src}) - \cos(I, T_{tgt}) + m)

    Args:
        image: Unit features of the pictures, ``(B, D)``.
        source: Unit features of what they showed, ``(B, D)``.
        target: Unit features of what they shall show, ``(B, D)``.
        margin: By how much.

    Returns:
        One loss a picture, ``(B,)``.

    Gradients:
        Of any order, to all three; 0 where the margin is reached.
    """
    return ((image * (source - target)).sum(-1) + margin).clamp(min=0)


def resemblance_loss(
    features: Sequence[Tensor],
    source: Sequence[Tensor],
    previous: Sequence[Tensor] | None,
    *,
    pull: float = 2.5,
) -> Tensor:
    r"""How far a picture's features are from the source's, next to how far they moved since the last step.

    .. math:: \sum_l \max(0, p\,\mathrm{MSE}(f^l, f^l_{src}) - \mathrm{MSE}(f^l, f^l_{previous}))

    Args:
        features: Of every layer ``l``, ``(R, B, ...)``, such as channels, rows and columns, or tokens and
            features: R roles, such as with and without the prompt.
        source: The same of the source; R or B may be 1 there, for one that stands for all.
        previous: The same as ``features`` of the step before; None at the first, where nothing is taken off.
        pull: The factor ``p``.

    Returns:
        One loss an edit, ``(B,)``. Means are over all but B, so that an edit's loss does not depend on
        what else is in the batch.

    Gradients:
        First order, to ``features`` alone.
    """
    total = features[0].new_zeros(features[0].shape[1])
    for i, (now, before) in enumerate(zip(features, source)):
        term = pull * _mean_square(now - before.detach())
        if previous is not None:
            term = (term - _mean_square(now - previous[i].detach())).clamp(min=0)
        total = total + term
    return total


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean([axis for axis in range(difference.dim()) if axis != 1])
