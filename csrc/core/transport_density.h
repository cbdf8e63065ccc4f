// An entry of the plan relative to the product of the weights, for the CPU and the GPU.
//
//   E_ij = exp((f_i + g_j - C_ij) / eps)      0 where f_i, g_j or C_ij is not finite
//
// V is a number or a vector of numbers. E is limited to 1 / e of the largest number, which a point of zero
// weight can exceed before the iteration has converged.
//
// No include guard: as core/scaling.h.

#include "core/anywhere.h"

namespace geokernels::GEOKERNELS_LEVEL {

// inverse: 1 / eps
template <class T, class V>
GEOKERNELS_ANYWHERE V density_of(V f, V g, V cost, T inverse) {
  constexpr T largest = sizeof(T) == 4 ? T(87.7228) : T(708.7827);  // log of the largest number, less 1
  constexpr T infinite = std::numeric_limits<T>::infinity();
  const V zero = {}, most = zero + largest;
  const V apart = (f + g) - cost;
  const V power = apart * inverse;
  const V e = exp<T>(power > largest ? most : power);
  // a comparison with NaN, of opposite infinities, is false
  return apart < infinite ? (apart > -infinite ? e : zero) : zero;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
