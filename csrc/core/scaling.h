// A half-step of Sinkhorn's iteration in the scaling domain, for the CPU and the GPU.
//
//   scale = sum^-lambda exp(-(1 - lambda) potential),   lambda = rho / (rho + eps), 1 for hard marginals
//
// V is a number, for one point, or a vector of numbers. Derived in cpu/transport_iteration.h.
//
// No include guard: included once for every SIMD level after core/exponential.h, and by CUDA kernels with a
// level of their own (cuda/formulas.h).

#include "core/anywhere.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class V>
struct Step {
  V scale, log_scale, sum;
};

template <class T>
struct Scaling {
  // Sums beyond this, or below its inverse, are not trusted: scalings are absorbed, and K is computed anew.
  // e^30 leaves float32 room above its least number; float64 can wait longer.
  static constexpr T kReach = sizeof(T) == 4 ? T(1e13) : T(1e90);

  // A scaling times its weight, or infinity where entries lost to underflow might count beside it, so that
  // the sums with it are not trusted. Balanced, a scaling is the inverse of a sum that is.
  template <class V>
  GEOKERNELS_ANYWHERE static V scaled(bool balanced, V scale, V weight) {
    const V product = scale * weight, infinite = V() + std::numeric_limits<T>::infinity();
    if (balanced) return product;
    return product <= kReach ? product : infinite;
  }

  // Beyond this many times eps a constant would take scalings out of their range: K is made anew.
  static constexpr double kMostLift = 20;

  T lambda;
  T bend;  // -eps / rho

  GEOKERNELS_ANYWHERE Scaling(double eps, double reach)
      : lambda(reach < std::numeric_limits<double>::infinity() ? T(reach / (reach + eps)) : T(1)),
        bend(T(-eps / reach)) {}

  // From a sum and the potential; 1 for a point that takes no part, whose potential is -inf. Balanced, there
  // is no logarithm: log_scale is 0 then.
  template <class V>
  GEOKERNELS_ANYWHERE Step<V> step(bool balanced, V sum, V potential) const {
    const V zero = {}, one = zero + T(1);
    const auto idle = potential == zero - std::numeric_limits<T>::infinity();
    sum = idle ? one : sum;
    if (balanced) return {one / sum, zero, sum};
    potential = idle ? zero : potential;
    const V log_scale = -lambda * log<T>(sum) - (T(1) - lambda) * potential;
    return {exp<T>(log_scale), log_scale, sum};
  }

  // What a marginal should be, as a fraction of the weight, by a potential and what is not yet absorbed.
  template <class V>
  GEOKERNELS_ANYWHERE V wanted(bool balanced, V potential, V log_scale) const {
    const V one = V() + T(1);
    return balanced ? one : exp<T>((potential + log_scale) * bend);
  }
};

// exp(x) - 1 - x, to the last digits for small x.
template <class T, class V>
GEOKERNELS_ANYWHERE V exp_rest(V x) {
  constexpr int kTerms = sizeof(T) == 4 ? 9 : 17;
  const V one = V() + T(1);
  V sum = one;
  for (int k = kTerms; k > 2; --k) sum = one + x * sum * (T(1) / T(k));
  const V size = x < T(0) ? -x : x;
  return size < T(0.5) ? x * x * sum * T(0.5) : (exp<T>(x) - T(1)) - x;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
