// What is returned of a small transport problem, once its potentials are found, by the block that found them.
//
// In shared memory phi and gamma are potentials in units of eps; a point that takes no part has weight 0
// there. Masses and the value are in float64.

#pragma once

#include <cmath>

#include "core/transport_value.h"
#include "cuda/transport_layout.h"

namespace geokernels {

template <class T, class L>
class Result {
 public:
  __device__ Result()
      : s(shared_memory<T, L>()),
        p(s.problem),
        balanced(s.balanced),
        inverse_eps(s.inverse_eps),
        lambda(s.scaling.lambda),
        stranded(s.stranded) {}

  // Writes value, f, g and their error, which is `error` where rounding them cannot matter; returns it.
  __device__ double write(double error) const {
    const double most = fmax(largest(s.a, s.phi, p.n), largest(s.b, s.gamma, p.m));
    const double mass_a = s.mass_a, mass_b = s.mass_b;
    const SideSums of_a = side_sums(p.a, s.a, s.phi, p.n, mass_a);
    const SideSums of_b = side_sums(p.b, s.b, s.gamma, p.m, mass_b);
    const double reach = p.reach / p.eps;
    double value = dual_value(of_a, of_b, reach);
    if (is_below_eps(value, of_a, of_b))
      value = value_of_pairs(value, of_a, of_b, pair_sums(T(level_of(of_a, reach))), reach);
    value *= p.eps;
    const double shift = balanced && stranded == 0 ? (of_b.gain - of_a.gain) / (mass_a + mass_b) : 0;
    if (most + fabs(shift) > kMostPotential<T>) return refuse();
    for (int i = threadIdx.x; i < p.n; i += L::kThreads) {
      const bool idle = !(s.a[i] > 0);
      const double potential =
          idle ? transform(s.b, s.gamma, p.m, p.cost + i * p.stride, 1) : double(s.phi[i]);
      p.f[i] = T(p.eps * (potential + shift));
    }
    for (int j = threadIdx.x; j < p.m; j += L::kThreads) {
      const bool idle = !(s.b[j] > 0);
      const double potential = idle ? transform(s.a, s.phi, p.n, p.cost + j, p.stride) : double(s.gamma[j]);
      p.g[j] = T(p.eps * (potential - shift));
    }
    // rounding f and g moves an entry of P by this much, relatively, at most
    const double rounding = 4 * double(std::numeric_limits<T>::epsilon()) * (most + fabs(shift));
    if (rounding * mass_a > p.tol / 8) error = measured_error() + stranded;
    if (threadIdx.x == 0) *p.value = T(value), *p.error = T(error);
    return error;
  }

  // Writes NaN throughout, and returns it.
  __device__ double refuse() const {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (int i = threadIdx.x; i < p.n; i += L::kThreads) p.f[i] = nan;
    for (int j = threadIdx.x; j < p.m; j += L::kThreads) p.g[j] = nan;
    if (threadIdx.x == 0) *p.value = *p.error = nan;
    return nan;
  }

 private:
  // The largest size of a potential that counts; 0 where none does.
  __device__ double largest(const T* weight, const T* potential, int64_t count) const {
    double most = 0;
    for (int i = threadIdx.x; i < count; i += L::kThreads)
      if (weight[i] > 0) most = fmax(most, fabs(double(potential[i])));
    most = warp_max(most);
    __syncthreads();  // all reads of spare are done
    if (lane() == 0) s.spare[warp()] = most;
    __syncthreads();
    for (int w = 0; w < L::kWarps; ++w) most = fmax(most, s.spare[w]);
    return most;
  }

  // The potential, in units of eps, that the other side gives to a point without mass.
  __device__ double transform(const T* weight, const T* potential, int64_t count, const T* cost,
                              int64_t step) const {
    double most = -infinity<double>(), total = 0;
    for (int64_t k = 0; k < count; ++k)
      if (weight[k] > 0) most = fmax(most, double(potential[k]) - double(cost[k * step]) / p.eps);
    if (most == -infinity<double>()) return infinity<double>();
    for (int64_t k = 0; k < count; ++k)
      if (weight[k] > 0)
        total += weight[k] * std::exp(double(potential[k]) - double(cost[k * step]) / p.eps - most);
    return -double(lambda) * (most + std::log(total));
  }

  // What one side adds to the value; the gain of a stranded point is at its bound.
  __device__ SideSums side_sums(const T* given, const T* weight, const T* potential, int64_t count,
                                double mass) const {
    SideSums sums;
    for (int i = threadIdx.x; i < count; i += L::kThreads) {
      const double w = given ? double(given[i]) : mass / count;
      if (w > 0) sums.add(w, weight[i] > 0 ? double(potential[i]) : infinity<double>(), p.reach / p.eps);
    }
    sums.mass = mass;
    sums.gain = block_sum(sums.gain, s.spare);
    sums.linear = block_sum(sums.linear, s.spare);
    sums.bent = block_sum(sums.bent, s.spare);
    return sums;
  }

  // What the pairs add where the costs are below eps.
  __device__ PairSums pair_sums(T level) const {
    PairSums sums;
#pragma unroll 1
    for (int i = warp(); i < int(p.n); i += L::kWarps) {
      const T weight = s.a[i], own = s.phi[i] + level;
      if (!(weight > 0)) continue;
      T cost = 0, rest = 0, constant = 0;
#pragma unroll 1
      for (int j = lane(); j < int(p.m); j += kWarp) {
        const T there = s.b[j], c = p.cost[i * p.stride + j] * inverse_eps;
        if (!(there > 0)) continue;
        const T sum = own + s.gamma[j];
        const bool meets = c < infinity<T>();
        cost += there * (meets ? c : T(1));
        rest += there * (meets ? device::exp_rest<T>(sum - c) : -sum);
        constant += there * (meets ? device::exp_rest<T>(-c) : T(0));
      }
      sums.add(weight, {cost, rest, constant});
    }
    sums.cost = block_sum(sums.cost, s.spare);
    sums.rest = block_sum(sums.rest, s.spare);
    sums.constant = block_sum(sums.constant, s.spare);
    return sums;
  }

  // Both marginals of the plan of f and g as returned, against what they should be.
  __device__ double measured_error() const {
    __syncthreads();  // f and g are written
    T of_columns[L::kColumns] = {};
    double wrong = 0;
    const int groups = L::groups(p.n);
    for (int group = 0; group < groups; ++group)
#pragma unroll 1
      for (int r = 0; r < L::kRows; ++r) {
        const int i = L::row(group, r);
        const T weight = s.a[i], potential = weight > 0 ? p.f[i] : T(0);
        T total = 0;
#pragma unroll
        for (int c = 0; c < L::kColumns; ++c) {
          const int j = L::column(c);
          if (!(weight > 0) || !(s.b[j] > 0)) continue;
          const T e = T(std::exp(((p.g[j] + potential) - p.cost[i * p.stride + j]) * inverse_eps));
          total += e * s.b[j];
          of_columns[c] += e * weight;
        }
        total = over_lanes<L::kAcross, Sum>(total);
        if (weight > 0 && lane() % L::kAcross == 0) wrong += weight * fabs(double(total) - share(potential));
      }
    s.show_columns(of_columns);
    __syncthreads();
    for (int j = threadIdx.x; j < p.m; j += L::kThreads)
      if (s.b[j] > 0) wrong += s.b[j] * fabs(double(s.column_sum(j)) - share(p.g[j]));
    return block_sum(wrong, s.spare);
  }

  // What a marginal should be, as a fraction of the weight, by a potential as returned.
  __device__ double share(T potential) const {
    return balanced ? 1.0 : std::exp(-double(potential) / p.reach);
  }

  Shared<T, L>& s;
  const TransportProblem<T>& p;
  const bool balanced;
  const T inverse_eps, lambda;
  const double stranded;
};

}  // namespace geokernels
