"""Intervals of shares and means are what their formulas give, also where there is hardly any data."""

import pytest

from geokernels.metrics import mean_interval, wilson_interval


def test_a_mean_has_1_96_standard_errors_either_way():
    found = mean_interval([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    # the squares of the deviations sum to 32
    assert found.half == pytest.approx(1.96 * (32 / 7 / 8) ** 0.5)
    assert (found.low, found.high) == pytest.approx((5 - found.half, 5 + found.half))


def test_one_value_has_no_spread_and_none_is_refused():
    assert mean_interval([0.3]) == (0.3, 0.0)
    with pytest.raises(ValueError, match="at least one number, got none"):
        mean_interval([])


def test_wilsons_interval_keeps_to_what_a_share_can_be():
    nothing, everything = wilson_interval(0, 10), wilson_interval(10, 10)
    # 0 of n reaches up to z^2 / (n + z^2)
    reach = 1.959964**2 / (10 + 1.959964**2)
    assert nothing == pytest.approx((0.0, 0.0, reach))
    assert everything == pytest.approx((1.0, 1 - reach, 1.0))
    assert nothing.low >= 0.0
    assert everything.high <= 1.0
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_interval(3, 2)
