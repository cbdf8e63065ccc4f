// What Sinkhorn's iteration returns, once its potentials are found: the value, f and g, and
// their error. Members of the class of cpu/transport_iteration.h.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_sweep.h"

namespace geokernels::GEOKERNELS_LEVEL {

// phi and gamma become the potentials in units of eps; the value, f, g and their error, which is returned,
// are written.
template <class T, bool Balanced>
inline double Sinkhorn<T, Balanced>::finish(double error) {
  absorb(u, log_u, phi, rows);
  absorb(v, log_v, gamma, cols);
  double most = 0;
  for (int64_t i = 0; i < p.n; ++i)
    if (a[i] > 0) most = std::max(most, std::fabs(double(phi[i])));
  for (int64_t j = 0; j < p.m; ++j)
    if (b[j] > 0) most = std::max(most, std::fabs(double(gamma[j])));
  const double reach = p.reach / p.eps;
  const SideSums of_a = side_sums(p.a, a, phi, p.n, mass_a), of_b = side_sums(p.b, b, gamma, p.m, mass_b);
  double value = dual_value(of_a, of_b, reach);
  if (is_below_eps(value, of_a, of_b))
    value = value_of_pairs(value, of_a, of_b, pair_sums(level_of(of_a, reach)), reach);
  *p.value = T(p.eps * value);
  double shift = Balanced && stranded == 0 ? (of_b.gain - of_a.gain) / (mass_a + mass_b) : 0;
  if (most + std::fabs(shift) > kMostPotential<T>) {
    refuse();
    return *p.error;
  }
  each_group([&](int64_t group, T*) {
    for (int64_t i = first_row(group), end = std::min(p.n, first_row(group + 1)); i < end; ++i) {
      double potential = a[i] > 0 ? double(phi[i]) : transform(b, gamma, p.m, p.cost + i * p.stride, 1);
      p.f[i] = T(p.eps * (potential + shift));
    }
    for (int64_t j = p.m * group / groups; j < p.m * (group + 1) / groups; ++j) {
      double potential = b[j] > 0 ? double(gamma[j]) : transform(a, phi, p.n, p.cost + j, p.stride);
      p.g[j] = T(p.eps * (potential - shift));
    }
  });
  // rounding f and g moves an entry of P by this much, relatively, at most
  double rounding = 4 * std::numeric_limits<T>::epsilon() * (most + std::fabs(shift));
  if (rounding * mass_a > p.tol / 8) error = measured_error() + stranded;
  *p.error = T(error);
  return error;
}

// The potential, in units of eps, that the other side gives to a point without mass.
template <class T, bool Balanced>
inline double Sinkhorn<T, Balanced>::transform(const T* weight, const T* potential, int64_t count,
                                               const T* cost, int64_t step) const {
  double most = -inf, total = 0;
  for (int64_t k = 0; k < count; ++k)
    if (weight[k] > 0) most = std::max(most, double(potential[k]) - double(cost[k * step]) / p.eps);
  if (most == -inf) return inf;
  for (int64_t k = 0; k < count; ++k)
    if (weight[k] > 0)
      total += weight[k] * std::exp(double(potential[k]) - double(cost[k * step]) / p.eps - most);
  return -double(scaling.lambda) * (most + std::log(total));
}

// What one side adds to the value; the gain of a stranded point is at its bound.
template <class T, bool Balanced>
inline SideSums Sinkhorn<T, Balanced>::side_sums(const T* given, const T* weight, const T* potential,
                                                 int64_t count, double mass) const {
  SideSums sums;
  sums.mass = mass;
  for (int64_t i = 0; i < count; ++i) {
    double w = given ? double(given[i]) : mass / count;
    if (w > 0) sums.add(w, weight[i] > 0 ? double(potential[i]) : double(inf), p.reach / p.eps);
  }
  return sums;
}

// What the pairs add where the costs are below eps.
template <class T, bool Balanced>
inline PairSums Sinkhorn<T, Balanced>::pair_sums(double level) {
  each_group([&](int64_t group, T*) {
    PairSums sums;
    for (int64_t i = first_row(group), end = first_row(group + 1); i < end; ++i) {
      if (!(a[i] > 0)) continue;
      const T own = T(phi[i] + level);
      vec<T> cost = {}, rest = {}, constant = {};
      each_cost(i, [&](int64_t j, vec<T> c) {
        const vec<T> weight = load(b + j), sum = own + load(gamma + j), scaled = c * inverse_eps, zero = {};
        const auto meets = c < inf;
        cost += weight > T(0) ? weight * (meets ? scaled : zero + T(1)) : zero;
        rest += weight > T(0) ? weight * (meets ? exp_rest<T>(sum - scaled) : -sum) : zero;
        constant += weight > T(0) ? weight * (meets ? exp_rest<T>(-scaled) : zero) : zero;
      });
      sums.add(a[i], {sum<T>(cost), sum<T>(rest), sum<T>(constant)});
    }
    tallies[group].pairs = sums;
  });
  PairSums total;
  for (int64_t group = 0; group < groups; ++group) total.add(1, tallies[group].pairs);
  return total;
}

// Both marginals of the plan of f and g as returned, against what they should be.
template <class T, bool Balanced>
inline double Sinkhorn<T, Balanced>::measured_error() {
  std::fill(top, top + cols, -inf);
  for (int64_t j = 0; j < p.m; ++j)
    if (b[j] > 0) top[j] = p.g[j];
  each_group([&](int64_t group, T*) {
    T* const sums = column + group * cols;
    std::fill(sums, sums + cols, T(0));
    double wrong = 0;
    for (int64_t i = first_row(group), end = first_row(group + 1); i < end; ++i) {
      if (!(a[i] > 0)) continue;
      vec<T> total = {};
      each_cost(i, [&](int64_t j, vec<T> c) {
        vec<T> e = exp<T>(((load(top + j) + p.f[i]) - c) * inverse_eps);
        total += e * load(b + j);
        store(sums + j, load(sums + j) + e * a[i]);
      });
      wrong += a[i] * std::fabs(sum<T>(total) - (Balanced ? 1 : std::exp(-p.f[i] / p.reach)));
    }
    tallies[group].off = wrong;
  });
  add_groups();
  double wrong = 0;
  for (int64_t group = 0; group < groups; ++group) wrong += tallies[group].off;
  for (int64_t j = 0; j < p.m; ++j)
    if (b[j] > 0) wrong += b[j] * std::fabs(column[j] - (Balanced ? 1 : std::exp(-p.g[j] / p.reach)));
  return wrong;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
