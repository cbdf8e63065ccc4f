"""The numbers that costs between points go by, inside of the compiled operators and of Triton's kernels."""


class PointCost:
    """Costs that a solver of small problems makes itself: csrc/core/transport_problem.h."""

    DOT, ANGLE, SQUARE = range(3)


class PairCost:
    """Costs of passes over the pairs of large clouds: csrc/core/transport_clouds.h.

    The operators take the first four. The passes make sizes of powers with p = 1, and squares of those with
    p = 2, which have loops of their own. Triton's read costs that are given, along rows or, turned, columns.
    """

    DOT, SQUARE, ROOT, POWER, SIZES, SQUARES, GIVEN, TURNED = range(8)


# what the public names of costs that are products of points are in a small problem
PRODUCTS = {"dot": PointCost.DOT, "cosine": PointCost.ANGLE, "sqeuclidean": PointCost.SQUARE}
