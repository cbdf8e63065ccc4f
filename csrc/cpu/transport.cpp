// Entropic transport on the CPU: the host loops over a batch, and their registration.
// The iteration itself is cpu/transport_iteration.h; costs of points, cpu/transport_points_kernel.h.

#include <atomic>
#include <optional>
#include <tuple>
#include <utility>

#include "core/aim.h"
#include "core/transport_value.h"
#include "cpu/crew.h"
#include "cpu/direct_transport.h"
#include "cpu/stored.h"
#include "cpu/workers.h"
#include "host/operators.h"
#include "host/transport_gradients.h"

#define GEOKERNELS_KERNEL "cpu/transport_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

std::atomic<int64_t> in_memory{int64_t(1) << 30};

// One problem of a batch, whose costs are there.
template <class T>
void solve(const TransportBatch<T>& batch, int64_t k, bool stored, const Crew<T>* crew, Workspace<T> memory,
           Watch& watch) {
  TransportProblem<T> p = batch.problem(k);
  std::fill(p.f + p.n, p.f + batch.rows, T(0));
  std::fill(p.g + p.m, p.g + batch.columns, T(0));
  GEOKERNELS_AT_LEVEL(sinkhorn<T>, p, stored, crew, memory, watch);
}

// The threads of torch as a crew.
template <class T>
Crew<T> crew_of(Watch& watch) {
  return {&watch,
          [](const void* host, int64_t count, int64_t memory, typename Crew<T>::Part part, const void* work) {
            Watch& watch = *static_cast<Watch*>(const_cast<void*>(host));
            share_out<T>(watch, count, memory, [&](int64_t k, Workspace<T> own) { part(work, k, own); });
          }};
}

// A batch is shared out problem by problem, but few large problems one after another, each among all threads:
// the arithmetic is the same.
template <class T>
void solve_all(const TransportBatch<T>& batch) {
  // Pairs. Waking threads that sleep takes some 30 microseconds; a sweep of 512 x 512 takes 18 on one thread.
  constexpr int64_t kWorthSharing = 1'000'000;
  const int64_t pairs = batch.rows * batch.columns, threads = torch::stable::get_num_threads();
  const int64_t matrix = pairs * int64_t(sizeof(T));
  const bool few = batch.problems < 2 * threads || matrix * threads > most_stored();
  const bool together = threads > 1 && pairs >= kWorthSharing && few;
  const bool stored = matrix * (together ? 1 : std::min(threads, batch.problems)) <= most_stored();
  const int64_t memory =
      GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, batch.rows, batch.columns, stored, together);
  Watch watch;
  if (!together) {
    share_out<T>(watch, batch.problems, memory,
                 [&](int64_t k, Workspace<T> own) { solve<T>(batch, k, stored, nullptr, own, watch); });
  } else {
    const Crew<T> crew = crew_of<T>(watch);
    Scratch<T> own(memory);
    for (int64_t k = 0; k < batch.problems && !watch.stop(); ++k)
      solve(batch, k, stored, &crew, own.lend(), watch);
  }
  watch.end();
}

Solution sinkhorn(const Tensor& cost, const MaybeTensor& a, const MaybeTensor& b, const MaybeTensor& n,
                  const MaybeTensor& m, const MaybeTensor& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  return solve_batch(
      cost, {a, b, n, m, start, eps, reach, max_iter, tol}, [](const auto& batch) { solve_all(batch); },
      kAnyPoints);
}

// The same from points: a problem's costs are made by the thread that iterates on them, and are still in its
// cache then.
PointSolution sinkhorn_points(const Tensor& x, const Tensor& y, const MaybeTensor& a, const MaybeTensor& b,
                              const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start,
                              int64_t cost, double eps, double reach, int64_t max_iter, double tol) {
  const Points points(x, y, cost);
  const int64_t features = points.features;
  Tensor costs = points.fresh_costs(x.scalar_type());
  const TransportArguments with{a, b, n, m, start, eps, reach, max_iter, tol};
  const Solution solution = solve_batch(costs, with, [&](const auto& batch) {
    using T = typename std::decay_t<decltype(batch)>::Number;
    const T *of_x = read<T>(points.x), *of_y = read<T>(points.y);
    T* to = write<T>(costs);
    int64_t memory =
        std::max(GEOKERNELS_AT_LEVEL(sinkhorn_workspace<T>, batch.rows, batch.columns, true, false),
                 GEOKERNELS_AT_LEVEL(point_costs_workspace<T>, batch.columns, features));
    const int64_t threads = torch::stable::get_num_threads();
    Watch watch;
    share_out<T>(watch, batch.problems, memory, [&](int64_t k, Workspace<T> own) {
      TransportProblem<T> p = batch.problem(k);
      T* made = to + k * batch.rows * batch.columns;
      if (p.n < batch.rows || p.m < batch.columns)
        std::fill(made, made + batch.rows * batch.columns, std::numeric_limits<T>::infinity());
      // threads advance side by side: this one is likely to take that problem next
      const int64_t on = k + threads < batch.problems ? threads * features : 0;
      GEOKERNELS_AT_LEVEL(point_costs<T>, of_x + k * batch.rows * features,
                          of_y + k * batch.columns * features, p.n, p.m, features,
                          std::make_pair(on * batch.rows, on * batch.columns), points.kind, made,
                          batch.columns, own);
      solve<T>(batch, k, true, nullptr, own.again(), watch);
    });
    watch.end();
  });
  return std::tuple_cat(std::make_tuple(costs), solution);
}

Tensor point_gradient(const Tensor& weight, const Tensor& x, const Tensor& y, int64_t cost) {
  return point_gradient_of_batch(weight, x, y, cost, [](const auto& batch) {
    using T = std::decay_t<decltype(*batch.out)>;
    constexpr int64_t kBeyondCaches = 8 << 20;  // bytes
    const int64_t rows = batch.rows, columns = batch.columns, features = batch.features;
    const bool past = batch.problems * rows * features * int64_t(sizeof(T)) >= kBeyondCaches;
    const int64_t threads = torch::stable::get_num_threads();
    Watch watch;
    share_out<T>(watch, batch.problems, GEOKERNELS_AT_LEVEL(point_gradient_workspace<T>, rows, columns),
                 [&](int64_t k, Workspace<T> own) {
                   // as for costs: this thread is likely to take that problem next
                   const int64_t on = k + threads < batch.problems ? threads * features : 0;
                   GEOKERNELS_AT_LEVEL(point_gradient<T>, batch.weight + k * rows * columns,
                                       batch.x + k * rows * features, batch.y + k * columns * features, rows,
                                       columns, features, std::make_pair(on * rows, on * columns), batch.kind,
                                       past, batch.out + k * rows * features, own);
                 });
    watch.end();
  });
}

Tensor transport_density(const Tensor& cost, const Tensor& f, const Tensor& g, double eps) {
  return density_of_batch(cost, f, g, eps, [](const auto& batch) {
    using T = std::decay_t<decltype(*batch.out)>;
    constexpr int64_t kWorthAThread = 20'000;  // exponentials
    const int64_t columns = batch.columns;
    Watch watch;
    auto fill = [&](int64_t i, Workspace<T>) {
      GEOKERNELS_AT_LEVEL(density_row<T>, batch.cost + i * columns, batch.f[i],
                          batch.g + i / batch.rows * columns, columns, batch.inverse,
                          batch.out + i * columns);
    };
    share_out<T>(watch, batch.problems * batch.rows, 0, fill, 1 + kWorthAThread / columns);
    watch.end();
  });
}

// Whole numbers beside `like`, one a problem; data is their address.
PyObject* make_counts(PyObject* like, const Plain& of, void*& data) {
  static PyObject* const name = PyUnicode_InternFromString("new_empty");
  static PyObject* const address = PyUnicode_InternFromString("data_ptr");
  static PyObject* const kind =
      Py_BuildValue("{sN}", "dtype", PyObject_GetAttrString(PyImport_ImportModule("torch"), "int64"));
  const int64_t dims = of.dims - 2;
  const Owned sizes(PyTuple_New(dims)), method(PyObject_GetAttr(like, name));
  for (int64_t dim = 0; sizes && dim < dims; ++dim)
    PyTuple_SetItem(sizes.get(), dim, PyLong_FromLongLong(of.sizes[dim]));
  const Owned given(sizes && method && kind ? PyTuple_Pack(1, sizes.get()) : nullptr);
  Owned made(given ? PyObject_Call(method.get(), given.get(), kind) : nullptr);
  const Owned at(made ? PyObject_CallMethodObjArgs(made.get(), address, nullptr) : nullptr);
  if (!at) return nullptr;
  data = PyLong_AsVoidPtr(at.get());
  return made.release();
}

}  // namespace

// cost, eps, reach, max_iter, tol -> value, f, g, error, iterations, of uniform weights and all rows.
PyObject* direct_sinkhorn(PyObject*, Arguments given, Py_ssize_t count) {
  Plain cost;
  double eps, tol;
  int64_t most;
  if (count != 5 || !look(given[0], 2, cost) || !cost.rows || !PyFloat_CheckExact(given[2])) Py_RETURN_NONE;
  constexpr double kUnbounded = std::numeric_limits<double>::infinity();
  if (!number(given[1], kUnbounded, eps) || !whole_number(given[3], most) ||
      !number(given[4], kUnbounded, tol))
    Py_RETURN_NONE;
  const int64_t rows = cost.last(2), columns = cost.last(1), problems = cost.batch(2);
  void *value, *f, *g, *error, *iterations = nullptr;
  const Owned of_value(make(given[0], cost, {}, value)), of_f(make(given[0], cost, {rows}, f)),
      of_g(make(given[0], cost, {columns}, g)), of_error(make(given[0], cost, {}, error)),
      of_iterations(make_counts(given[0], cost, iterations));
  if (!of_value || !of_f || !of_g || !of_error || !of_iterations) return nullptr;
  const double reach = PyFloat_AsDouble(given[2]);
  const bool done = directly(cost, [&](auto zero) {
    using T = decltype(zero);
    auto at = [](void* data) { return static_cast<T*>(data); };
    solve_all(TransportBatch<T>{at(cost.data), nullptr, nullptr, nullptr, nullptr, nullptr, problems, rows,
                                columns, eps, reach, tol, most, at(value), at(f), at(g), at(error),
                                static_cast<int64_t*>(iterations)});
  });
  if (!done) return nullptr;
  return PyTuple_Pack(5, of_value.get(), of_f.get(), of_g.get(), of_error.get(), of_iterations.get());
}

int64_t most_stored() { return in_memory.load(std::memory_order_relaxed); }
void set_most_stored(int64_t bytes) { in_memory.store(bytes, std::memory_order_relaxed); }

}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("sinkhorn_points", TORCH_BOX(&geokernels::sinkhorn_points));
  m.impl("point_gradient", TORCH_BOX(&geokernels::point_gradient));
  m.impl("transport_density", TORCH_BOX(&geokernels::transport_density));
}
