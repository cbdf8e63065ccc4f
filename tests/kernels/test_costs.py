"""Numbers that Python and C++ both hold are the same in the two."""

import re
from pathlib import Path

import pytest

from geokernels.kernels import sizes
from geokernels.kernels.costs import PRODUCTS, PairCost, PointCost
from geokernels.kernels.triton import PRECISIONS
from geokernels.reference.potentials import LEAST_LIFT

CSRC = Path(__file__).parents[2] / "csrc"


def numbers(kind) -> dict[str, int]:
    """The names of a class of costs, each with its number."""
    return {name.lower(): number for name, number in vars(kind).items() if name.isupper()}


@pytest.mark.parametrize(
    ("kind", "header"), [(PointCost, "core/transport_problem.h"), (PairCost, "core/transport_clouds.h")]
)
def test_costs_have_the_numbers_of_the_compiled_kernels(kind, header):
    body = re.sub(r"//.*", "", (CSRC / header).read_text())
    (names,) = re.findall(rf"enum class {kind.__name__} : int64_t {{([^}}]*)}}", body)
    names = [name.strip() for name in names.split(",") if name.strip()]
    # Triton's kernels have costs of their own beyond those
    ours = {name: number for name, number in numbers(kind).items() if number < len(names)}
    assert ours == {name: number for number, name in enumerate(names)}
    assert len(numbers(kind)) - len(names) == (2 if kind is PairCost else 0)


def test_every_number_stands_for_one_cost():
    for kind in (PointCost, PairCost):
        assert sorted(numbers(kind).values()) == list(range(len(numbers(kind))))
    assert sorted(PRODUCTS.values()) == sorted(numbers(PointCost).values())
    assert len(set(PRECISIONS)) == len(PRECISIONS)


def test_the_largest_problem_is_that_of_the_compiled_kernel():
    header = (CSRC / "core/transport_problem.h").read_text()
    assert re.findall(r"kMostPoints = (\d+);", header) == [str(sizes.NATIVE.points)]


def test_potentials_are_moved_from_the_same_difference_on():
    header = (CSRC / "core/transport_value.h").read_text()
    assert re.findall(r"std::fabs\(ratio - 1\) > (\d+) \* rounding", header) == [str(LEAST_LIFT)]
