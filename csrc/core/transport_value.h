// The dual value of potentials, in units of eps.
//
//   sum_i a_i gain(f_i) + sum_j b_j gain(g_j) + |a| |b| - |P|,    gain(f) = f, or rho (1 - exp(-f / rho))

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

// From the sides' gains, after a column step: P's column sums are b, or b exp(-g / rho). Infinite where hard
// constraints cannot be met.
GEOKERNELS_ANYWHERE inline double dual_value(double gain_a, double gain_b, double mass_a, double mass_b,
                                             double reach) {
  const double lost = reach < std::numeric_limits<double>::infinity() ? gain_b / reach : 0;
  return gain_a + gain_b + mass_a * mass_b - (mass_b - lost);
}

}  // namespace geokernels
