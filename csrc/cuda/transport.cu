// Entropic transport of small problems on the GPU: how its kernel is launched, and registration.
// The iteration itself is cuda/transport_kernel.h; costs of points, cuda/transport_points_kernel.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/launch.h"
#include "cuda/transport_kernel.h"
#include "transport_batch.h"

namespace geokernels {
namespace {

// As much of K as fits is in shared memory, the rest in device memory: enough for the blocks that run at
// once.
template <class T, class L>
void launch_layout(const TransportBatch<T>& batch, const PointBatch<T>& points, const Tensor& like,
                   const Device& device) {
  int64_t blocks = batch.problems;
  Store<T> store{0, nullptr, 0};
  std::optional<Tensor> far;
  if (!L::kResident) {
    const int groups = L::groups(batch.rows);
    const int64_t room = device.block_memory() - shared_bytes<T, L>(0, false);
    store.near_groups = int(std::min<int64_t>(groups, room / (L::kEntries * int64_t(sizeof(T)))));
    store.far_size = int64_t(groups - store.near_groups) * L::kEntries;
    if (store.far_size > 0) {
      blocks = std::min(blocks, device.property(cudaDevAttrMultiProcessorCount));
      far = fresh(like, {blocks, store.far_size}, like.scalar_type());
      store.far = static_cast<T*>(far->mutable_data_ptr());
    }
  }
  launch(sinkhorn_kernel<T, L>, blocks, L::kThreads, shared_bytes<T, L>(store.near_groups, points.x),
         device.stream(), batch, store, points);
}

// The pointer type of a batch's results says what it computes in.
template <class Batch>
using Number = std::remove_pointer_t<decltype(std::declval<Batch>().f)>;

template <class T>
void launch_batch(const TransportBatch<T>& batch, const PointBatch<T>& points, const Tensor& like,
                  const Device& device) {
  with_layout<T>(batch.rows, batch.columns,
                 [&](auto layout) { launch_layout<T, decltype(layout)>(batch, points, like, device); });
}

Solution sinkhorn(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  const Device device(cost);
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = Number<std::decay_t<decltype(batch)>>;
    launch_batch<T>(batch, PointBatch<T>{}, cost, device);
  });
}

using PointSolution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // costs, and a Solution

// The same from points: a problem's costs are made by the block that iterates on them.
PointSolution sinkhorn_points(const Tensor& x_given, const Tensor& y_given, const std::optional<Tensor>& a,
                              const std::optional<Tensor>& b, const std::optional<Tensor>& n,
                              const std::optional<Tensor>& m, const std::optional<Tensor>& start,
                              int64_t kind, double eps, double reach, int64_t max_iter, double tol) {
  const Device device(x_given);
  Tensor x = dense(x_given), y = dense(y_given);
  STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim() && x.size(-1) == y.size(-1) && x.size(-1) > 0,
                  "geokernels: clouds must have two dimensions, and features in common");
  STD_TORCH_CHECK(0 <= kind && kind <= int64_t(PointCost::square), "geokernels: no such cost, ", kind);
  const int64_t features = x.size(-1);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end() - 1);
  shape.push_back(y.size(-2));
  Tensor costs = fresh(x, shape, x.scalar_type());
  Solution found = solve_batch(costs, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = Number<std::decay_t<decltype(batch)>>;
    const T* of_y = input<T>(y, "y", x, batch.problems * batch.columns * features, x.scalar_type());
    const PointBatch<T> points{static_cast<const T*>(x.const_data_ptr()), of_y,
                               static_cast<T*>(costs.mutable_data_ptr()), features, PointCost(kind)};
    launch_batch<T>(batch, points, x, device);
  });
  return std::tuple_cat(std::make_tuple(costs), found);
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("sinkhorn_points", TORCH_BOX(&geokernels::sinkhorn_points));
}
