// Exact transport of a batch, on the CPU: one thread a problem (core/exact_transport.h).
//
//   cost [..., N, M], a [..., N] or none, b [..., M] or none
//
// The prices have <a, f> = <b, g>. A problem without a plan, or one with NaN, -inf, negative or unequal
// masses, has NaN throughout, no mass, and an ending that says why.

#include "core/exact_transport.h"

#include "cpu/workers.h"
#include "host/exact_transport.h"
#include "host/operators.h"

#define GEOKERNELS_KERNEL "cpu/exact_transport_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

template <class T>
bool are_costs(const T* cost, int64_t count) {
  return std::all_of(cost, cost + count, [](T c) { return c > -std::numeric_limits<T>::infinity(); });
}

// What a solver found, or nothing where it is null.
template <class T, class Solver>
void write_result(const ExactTransportBatch<T>& batch, int64_t k, const double* a, const double* b,
                  const Solver* solved) {
  const int64_t n = batch.n, m = batch.m;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  double value = solved ? 0 : nan, of_rows = 0, of_columns = 0, masses = 0;
  for (int64_t p = 0, at = k * (n + m - 1); p < n + m - 1; ++p, ++at) {
    const int64_t row = solved ? solved->row_of(p) : 0, column = solved ? solved->column_of(p) : 0;
    const double mass = solved ? solved->mass_of(p) : 0;
    batch.rows[at] = row, batch.columns[at] = column, batch.mass[at] = T(mass);
    if (mass > 0) value += mass * batch.cost[(k * n + row) * m + column];
  }
  for (int64_t i = 0; solved && i < n; ++i)
    of_rows += (a ? a[i] : 1.0 / n) * solved->row_price(i), masses += a ? a[i] : 1.0 / n;
  for (int64_t j = 0; solved && j < m; ++j)
    of_columns += (b ? b[j] : 1.0 / m) * solved->column_price(j), masses += b ? b[j] : 1.0 / m;
  const double shift = (of_columns - of_rows) / masses;
  for (int64_t i = 0; i < n; ++i) batch.f[k * n + i] = T(solved ? solved->row_price(i) + shift : nan);
  for (int64_t j = 0; j < m; ++j) batch.g[k * m + j] = T(solved ? solved->column_price(j) - shift : nan);
  batch.value[k] = T(value);
}

template <class T>
void solve(const ExactTransportBatch<T>& batch, int64_t k, Watch& watch) {
  const int64_t n = batch.n, m = batch.m;
  const T* const cost = batch.cost + k * n * m;
  std::vector<double> weights[2];
  if (batch.a) weights[0].assign(batch.a + k * n, batch.a + (k + 1) * n);
  if (batch.b) weights[1].assign(batch.b + k * m, batch.b + (k + 1) * m);
  const double *const a = batch.a ? weights[0].data() : nullptr, *const b =
                                                                     batch.b ? weights[1].data() : nullptr;
  const auto least = [](const T* costs, const double* heights, int64_t count, double bound) {
    return GEOKERNELS_AT_LEVEL(least_sum<T>, costs, heights, count, bound);
  };
  const double slack = std::max(std::sqrt(double(std::numeric_limits<T>::epsilon())), 1e-6);
  const WholeMasses masses(a, n, b, m, slack);
  using Solver = ExactTransport<T, decltype(least)>;
  Ending ending = Ending::unresolved;
  if (masses.possible && are_costs(cost, n * m)) {
    Solver solver(cost, n, m, masses, least, watch);
    ending = solver.solve();
    write_result(batch, k, a, b, ending == Ending::solved ? &solver : nullptr);
  } else {
    write_result<T, Solver>(batch, k, a, b, nullptr);
  }
  batch.ending[k] = int64_t(ending);
}

ExactTransportTensors exact_transport(const Tensor& cost, const MaybeTensor& a, const MaybeTensor& b) {
  return exact_transport_of_batch(cost, a, b, [](const auto& batch) {
    Watch watch;
    share_out<double>(watch, batch.problems, 1,
                      [&](int64_t k, Workspace<double>) { solve(batch, k, watch); });
    watch.end();
  });
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) { m.impl("exact_transport", TORCH_BOX(&geokernels::exact_transport)); }
