// The plan of potentials, relative to the product of the weights, for one row.
//
//   E_j = exp((f + g_j - C_j) / eps)     0 where f, g_j or C_j is infinite
//
// It saturates near the largest number, which a point of zero weight can reach before convergence.
//
// No include guard: included once for every SIMD level, after core/exponential.h.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
void density_row(const T* cost, T f, const T* g, int64_t count, double eps, T* density) {
  constexpr T largest = sizeof(T) == 4 ? T(87.7228) : T(708.7827);  // log of the largest number, less 1
  constexpr T infinite = std::numeric_limits<T>::infinity();
  const T inverse = T(1 / eps);
  auto of = [&](vec<T> c, vec<T> potential) {
    const vec<T> apart = (f + potential) - c;
    const vec<T> power = apart * inverse;
    const vec<T> e = exp<T>(power > largest ? broadcast<T>(largest) : power);
    // a comparison with NaN, of opposite infinities, is false
    return (apart < infinite ? (apart > -infinite ? e : vec<T>{}) : vec<T>{});
  };
  int64_t j = 0;
  for (; j + Vector<T>::width <= count; j += Vector<T>::width)
    store(density + j, of(load(cost + j), load(g + j)));
  if (j < count)
    store_first(density + j, of(load_first(cost + j, count - j), load_first(g + j, count - j)), count - j);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
