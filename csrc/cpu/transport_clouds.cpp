// Entropic transport between large point clouds on the CPU: host loop and registration. The iteration is
// cpu/transport_clouds_iteration.h, the sweeps over the pairs cpu/transport_clouds_sweep_kernel.h.

#include "core/transport_clouds.h"

#include <limits>
#include <tuple>

#include "core/transport_value.h"
#include "host/operators.h"
#include "host/transport_batch.h"

#define GEOKERNELS_KERNEL "cpu/transport_clouds_sweep_kernel.h"
#include "cpu/each_level.h"
// after the kernel that it calls
#include "cpu/transport_clouds_iteration.h"

namespace geokernels {
namespace {

// A batch of problems, one after another: each is shared out to all threads.
template <class T>
struct CloudBatch {
  const CloudSizes& sizes;
  const T *x, *y, *a, *b, *start;
  const int64_t *n, *m;
  CloudOptions options;
  T *value, *f, *g, *error;
  int64_t* iterations;

  void solve() const {
    Watch watch;
    for (int64_t k = 0; k < sizes.batch.count && !watch.stop(); ++k) solve(k, watch);
    watch.end();
  }

  void solve(int64_t k, Watch& watch) const {
    T *to_f = f + k * sizes.n, *to_g = g + k * sizes.m;
    std::fill(to_f, to_f + sizes.n, T(0));
    std::fill(to_g, to_g + sizes.m, T(0));
    int64_t rows = points_of(n, k, sizes.n), columns = points_of(m, k, sizes.m);
    CloudSinkhorn<T> problem(x + k * sizes.n * sizes.features, y + k * sizes.m * sizes.features,
                             a ? a + k * sizes.n : nullptr, b ? b + k * sizes.m : nullptr, rows, columns,
                             options, watch);
    iterations[k] = 0;
    value[k] = error[k] = std::numeric_limits<T>::quiet_NaN();
    std::fill(to_f, to_f + rows, value[k]);
    std::fill(to_g, to_g + columns, value[k]);
    if (!problem.valid()) return;
    problem.run(start ? start + k * sizes.m : nullptr);
    value[k] = T(problem.value), error[k] = T(problem.error), iterations[k] = problem.iterations;
    std::copy(problem.a.potential.begin(), problem.a.potential.end(), to_f);
    std::copy(problem.b.potential.begin(), problem.b.potential.end(), to_g);
  }
};

Solution sinkhorn_clouds(const Tensor& x_given, const Tensor& y_given, const MaybeTensor& a,
                         const MaybeTensor& b, const MaybeTensor& n, const MaybeTensor& m,
                         const MaybeTensor& start, int64_t cost, double p, double reach, double hot,
                         double cooling, int64_t max_iter, double tol) {
  STD_TORCH_CHECK(hot >= 1 && 0 < cooling && cooling < 1, "geokernels: hot from 1, cooling between 0 and 1");
  const Tensor x = dense(x_given), y = dense(y_given);
  const CloudSizes s(x, y);
  Solution out = fresh_solution(x, s.batch, s.n, s.m);
  const CloudOptions options{s.features, checked_cost(cost), p, reach, hot, cooling, max_iter, tol};
  const int64_t count = s.batch.count, rows = count * s.n, columns = count * s.m;
  const ScalarType dtype = x.scalar_type(), length = ScalarType::Long;
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    CloudBatch<T>{s,
                  read<T>(x),
                  read<T>(y),
                  input<T>(dense(a), "a", x, rows, dtype),
                  input<T>(dense(b), "b", x, columns, dtype),
                  input<T>(dense(start), "start", x, columns, dtype),
                  input<int64_t>(dense(n), "n", x, count, length),
                  input<int64_t>(dense(m), "m", x, count, length),
                  options,
                  write<T>(std::get<0>(out)),
                  write<T>(std::get<1>(out)),
                  write<T>(std::get<2>(out)),
                  write<T>(std::get<3>(out)),
                  write<int64_t>(std::get<4>(out))}
        .solve();
  });
  return out;
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) { m.impl("sinkhorn_clouds", TORCH_BOX(&geokernels::sinkhorn_clouds)); }
