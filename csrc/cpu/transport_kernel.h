// The kernels of transport problems whose costs are stored: costs of points and their gradient, Sinkhorn's
// iteration, and the plan of the potentials that it finds.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_points_gradient_kernel.h"
#include "cpu/transport_result.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
int64_t sinkhorn_workspace(int64_t n, int64_t m, bool stored, bool together) {
  return Sinkhorn<T, true>::workspace(n, m, stored, together);
}

// crew: null for a thread that works alone
template <class T>
void sinkhorn(const TransportProblem<T>& problem, bool stored, const Crew<T>* crew, Workspace<T> memory,
              Watch& watch) {
  if (problem.reach < std::numeric_limits<double>::infinity())
    Sinkhorn<T, false>(problem, stored, crew, memory, watch).run();
  else
    Sinkhorn<T, true>(problem, stored, crew, memory, watch).run();
}

// One row of the plan relative to the product of the weights.
template <class T>
void density_row(const T* cost, T f, const T* g, int64_t count, T inverse, T* density) {
  auto of = [&](vec<T> c, vec<T> potential) { return density_of<T>(broadcast<T>(f), potential, c, inverse); };
  int64_t j = 0;
  for (; j + Vector<T>::width <= count; j += Vector<T>::width)
    store(density + j, of(load(cost + j), load(g + j)));
  if (j < count)
    store_first(density + j, of(load_first(cost + j, count - j), load_first(g + j, count - j)), count - j);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
