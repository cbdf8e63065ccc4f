// Masses of a transport problem as whole numbers, so that sums and differences of flows are exact.
//
// Both sides have the same total: 2^61, or, where all rows weigh the same and all columns do, the least that
// gives each a whole number. Every point has at least 1: one without mass would be in the way of the rule
// against cycling (core/exact_transport.h). `units` are the masses without that, zeros included.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace geokernels {

class WholeMasses {
 public:
  // Null for equal masses of 1 in all. The two sums may differ by `slack` of the first.
  WholeMasses(const double* a, int64_t rows, const double* b, int64_t columns, double slack)
      : units(rows + columns) {
    total = a ? sum(a, rows) : 1;
    const double other = b ? sum(b, columns) : 1;
    possible = fit(a, rows) && fit(b, columns) && 0 < total && total < HUGE_VAL &&
               std::abs(total - other) <= slack * total;
    if (!possible) return;
    if (equal(a, rows) && equal(b, columns)) {
      const int64_t common = std::gcd(rows, columns);
      std::fill_n(units.begin(), rows, columns / common);
      std::fill_n(units.begin() + rows, columns, rows / common);
      whole = rows / common * columns;
      raised = units;
      return;
    }
    whole = kTotal;
    count(a, rows, units.data());
    count(b, columns, units.data() + rows);
    raised = units;
    for (int64_t& unit : raised) some_raised |= unit == 0, unit = std::max<int64_t>(unit, 1);
    // the larger side has more points that were raised: the heaviest point of the other is raised by as much
    const int64_t gap = std::accumulate(raised.begin(), raised.begin() + rows, int64_t(0)) -
                        std::accumulate(raised.begin() + rows, raised.end(), int64_t(0));
    const auto side = gap < 0 ? raised.begin() : raised.begin() + rows;
    *std::max_element(side, side + (gap < 0 ? rows : columns)) += std::abs(gap);
  }

  std::vector<int64_t> units, raised;
  int64_t whole = 0;  // the sum of the units of a side
  double total = 0;   // the mass of a side
  bool some_raised = false, possible;

 private:
  static constexpr int64_t kTotal = int64_t(1) << 61;

  static double sum(const double* w, int64_t count) { return std::accumulate(w, w + count, 0.0L); }

  static bool fit(const double* w, int64_t count) {
    return !w || std::all_of(w, w + count, [](double x) { return 0 <= x && x < HUGE_VAL; });
  }

  static bool equal(const double* w, int64_t count) {
    return !w || std::all_of(w, w + count, [&](double x) { return x == w[0]; });
  }

  // Rounds to whole numbers; the heaviest point takes what that leaves.
  static void count(const double* w, int64_t count, int64_t* units) {
    const double own = w ? sum(w, count) : count;
    for (int64_t k = 0; k < count; ++k) units[k] = std::llrint((w ? w[k] : 1) / own * double(kTotal));
    *std::max_element(units, units + count) += kTotal - std::accumulate(units, units + count, int64_t(0));
  }
};

}  // namespace geokernels
