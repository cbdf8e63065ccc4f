// The dual value of potentials, in units of eps.
//
//   sum_i a_i gain(f_i) + sum_j b_j gain(g_j) + |a| |b| - |P|,    gain(f) = f, or rho (1 - exp(-f / rho))
//
// Where the costs are far below eps the first sums and the last difference are roundings of eps, and what
// they sum to is smaller. With t_ij = log E_ij + s, E being the plan relative to a and b, k = exp(-s) and
// rest(t) = exp(t) - 1 - t, the same is
//
//   k (sum_ij a_i b_j (C_ij - rest(t_ij)) + |a| |b| (1 / k - 1 - s))
//     + (1 - k |b|) sum_i a_i f_i - sum_i a_i bent(f_i) + (1 - k |a|) sum_j b_j g_j - sum_j b_j bent(g_j)
//
// with bent(f) = f - gain(f), where nothing is larger than the costs if t is small: s = log |a| when
// balanced, else 0. Of the two dual values that are then known, that of the potentials and that of constant
// ones, t = -C, the larger one counts: further from eps than T has digits, potentials are nothing but their
// roundings.

#pragma once

#include <cmath>
#include <limits>

#include "core/anywhere.h"

namespace geokernels {

// reach is +inf when the marginals are hard constraints.
GEOKERNELS_ANYWHERE inline double dual_gain(double potential, double reach) {
  return reach < std::numeric_limits<double>::infinity() ? -reach * std::expm1(-potential / reach)
                                                         : potential;
}

// x - log(1 + x), and exp(x) - 1 - x, to the last digits for small x.
GEOKERNELS_ANYWHERE inline double log_rest(double x) {
  if (std::fabs(x) > 0.1) return x - std::log1p(x);
  double sum = 0;
  for (int k = 18; k >= 2; --k) sum = (k % 2 ? -1.0 : 1.0) / k + x * sum;
  return x * x * sum;
}
GEOKERNELS_ANYWHERE inline double power_rest(double x) {
  if (std::fabs(x) > 0.5) return std::expm1(x) - x;
  double sum = 1;
  for (int k = 17; k > 2; --k) sum = 1 + x * sum / k;
  return x * x / 2 * sum;
}

// What is summed over one side.
struct SideSums {
  double mass = 0, gain = 0, linear = 0, bent = 0;

  GEOKERNELS_ANYWHERE void add(double weight, double potential, double reach) {
    gain += weight * dual_gain(potential, reach);
    linear += weight * potential;
    if (reach < std::numeric_limits<double>::infinity())
      bent += weight * reach * power_rest(-potential / reach);
  }
};

// What is summed over all pairs: a_i b_j times C_ij, rest(t_ij) and rest(-C_ij); 1, -(f_i + g_j + s) and 0
// where C_ij is infinite, which their differences tend to.
struct PairSums {
  double cost = 0, rest = 0, constant = 0;

  GEOKERNELS_ANYWHERE void add(double weight, const PairSums& row) {
    cost += weight * row.cost, rest += weight * row.rest, constant += weight * row.constant;
  }
};

// s, where it makes t small.
GEOKERNELS_ANYWHERE inline double level_of(const SideSums& a, double reach) {
  return reach < std::numeric_limits<double>::infinity() ? 0 : std::log(a.mass);
}

// After a column step, when P's column sums are b, or b exp(-g / rho). Infinite where hard constraints cannot
// be met.
GEOKERNELS_ANYWHERE inline double dual_value(const SideSums& a, const SideSums& b, double reach) {
  const double lost = reach < std::numeric_limits<double>::infinity() ? b.gain / reach : 0;
  return a.gain + b.gain + a.mass * b.mass - (b.mass - lost);
}

// Whether a value is so small that it should be computed from the pairs.
GEOKERNELS_ANYWHERE inline bool is_below_eps(double value, const SideSums& a, const SideSums& b) {
  return std::fabs(value) < a.mass * b.mass;
}

// The value by the pairs where t is small, else as it was.
GEOKERNELS_ANYWHERE inline double value_of_pairs(double value, const SideSums& a, const SideSums& b,
                                                 const PairSums& pairs, double reach) {
  // points without an admissible pair have infinite potentials
  const double sums = std::fabs(pairs.cost) + std::fabs(a.linear) + std::fabs(b.linear);
  if (!(pairs.rest < a.mass * b.mass && sums < std::numeric_limits<double>::infinity())) return value;
  if (reach < std::numeric_limits<double>::infinity()) {
    const double of_sides = (1 - b.mass) * a.linear - a.bent + (1 - a.mass) * b.linear - b.bent;
    return pairs.cost + std::fmax(of_sides - pairs.rest, -pairs.constant);
  }
  return (pairs.cost - std::fmin(pairs.rest, pairs.constant)) / a.mass + b.mass * log_rest(a.mass - 1);
}

// With potentials of so many times eps, the plan is rounding error alone.
template <class T>
constexpr double kMostPotential = 1 / double(std::numeric_limits<T>::epsilon());

// With a penalty, half-steps change the constant c that does not change the plan, f + c and g - c, only by a
// share of about eps / rho. Where the dual value is largest in it, it is
//   c = rho / 2 log(<a, exp(-f / rho)> / <b, exp(-g / rho)>)
// (T. Sejourne, F.-X. Vialard and G. Peyre, 2022), of the masses that the potentials of both sides ask for.
// After a column step the second is also the plan's, but its entries know their sum by |f| / eps roundings
// only, which rho would magnify. 0 where they differ by roundings. T is what potentials are held in, Sum what
// these masses are, Number what is computed in.
template <class T, class Sum = T, class Number = double>
GEOKERNELS_ANYWHERE Number best_constant(Number of_a, Number of_b, Number reach) {
  const Number ratio = of_a / of_b, by = reach / 2 * std::log(ratio);
  constexpr Number rounding = std::numeric_limits<T>::epsilon();
  // above what underflow has rounded
  constexpr Number least = Number(std::numeric_limits<Sum>::min()) / std::numeric_limits<Sum>::epsilon();
  const bool off = of_a > least && of_b > least && std::fabs(ratio - 1) > 16 * rounding;
  return off && std::fabs(by) < std::numeric_limits<Number>::infinity() ? by : 0;
}

}  // namespace geokernels
