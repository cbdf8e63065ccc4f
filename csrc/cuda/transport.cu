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

// What a launch has beside its batch.
template <class T>
struct Extras {
  PointBatch<T> points{};
  Carried<T> carried{};
};

// As much of K as fits is in shared memory, the rest in device memory: enough for the blocks that run at
// once.
template <class T, class L>
void launch_layout(const TransportBatch<T>& batch, const Extras<T>& extras, const Tensor& like,
                   const Device& device) {
  int64_t blocks = batch.problems;
  Store<T> store{0, nullptr, 0};
  std::optional<Tensor> far;
  if (!L::kResident) {
    const int groups = L::groups(batch.rows);
    const int64_t room = device.block_memory() - shared_bytes<T, L>(0, false, false);
    store.near_groups = int(std::min<int64_t>(groups, room / (L::kEntries * int64_t(sizeof(T)))));
    store.far_size = int64_t(groups - store.near_groups) * L::kEntries;
    if (store.far_size > 0) {
      blocks = std::min(blocks, device.property(cudaDevAttrMultiProcessorCount));
      far = fresh(like, {blocks, store.far_size}, like.scalar_type());
      store.far = static_cast<T*>(far->mutable_data_ptr());
    }
  }
  const int64_t memory = shared_bytes<T, L>(store.near_groups, extras.points.x, extras.carried.v);
  launch(sinkhorn_kernel<T, L>, blocks, L::kThreads, memory, device.stream(), batch, store, extras.points,
         extras.carried);
}

// The pointer type of a batch's results says what it computes in.
template <class Batch>
using Number = std::remove_pointer_t<decltype(std::declval<Batch>().f)>;

// Columns to carry and what becomes of them; nothing where there are none.
class Columns {
 public:
  // Of clouds of so many points, beside costs.
  Columns(const std::optional<Tensor>& v, const Tensor& costs) : given_(whole(v)) {
    if (!given_) return;
    std::vector<int64_t> shape(costs.sizes().begin(), costs.sizes().end() - 1);
    width_ = given_->size(-1);
    shape.push_back(width_);
    carried_ = fresh(costs, shape, costs.scalar_type());
  }

  template <class T>
  Carried<T> of(const TransportBatch<T>& batch, const Tensor& costs) {
    if (!given_ || width_ == 0) return {};
    const int64_t numel = batch.problems * batch.columns * width_;
    return {input<T>(given_, "v", costs, numel, costs.scalar_type()),
            static_cast<T*>(carried_->mutable_data_ptr()), width_};
  }

  Tensor carried() const { return *carried_; }

 private:
  std::optional<Tensor> given_, carried_;
  int64_t width_ = 0;
};

template <class T>
void launch_batch(const TransportBatch<T>& batch, const Extras<T>& extras, const Tensor& like,
                  const Device& device) {
  with_layout<T>(batch.rows, batch.columns,
                 [&](auto layout) { launch_layout<T, decltype(layout)>(batch, extras, like, device); });
}

using MaybeTensor = std::optional<Tensor>;

Solution solve_costs(const Tensor& cost, Columns& columns, const MaybeTensor& a, const MaybeTensor& b,
                     const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start, double eps,
                     double reach, int64_t max_iter, double tol) {
  const Device device(cost);
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = Number<std::decay_t<decltype(batch)>>;
    launch_batch<T>(batch, Extras<T>{{}, columns.of(batch, cost)}, cost, device);
  });
}

Solution sinkhorn(const Tensor& cost, const MaybeTensor& a, const MaybeTensor& b, const MaybeTensor& n,
                  const MaybeTensor& m, const MaybeTensor& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  Columns none(std::nullopt, cost);
  return solve_costs(cost, none, a, b, n, m, start, eps, reach, max_iter, tol);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn_carry(
    const Tensor& cost, const Tensor& v, const MaybeTensor& a, const MaybeTensor& b, const MaybeTensor& n,
    const MaybeTensor& m, const MaybeTensor& start, double eps, double reach, int64_t max_iter, double tol) {
  Columns columns(v, cost);
  Solution found = solve_costs(cost, columns, a, b, n, m, start, eps, reach, max_iter, tol);
  return std::tuple_cat(found, std::make_tuple(columns.carried()));
}

Stored stored(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  return dtype == ScalarType::Half       ? Stored::half
         : dtype == ScalarType::BFloat16 ? Stored::bfloat16
                                         : Stored::same;
}

using PointSolution = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // costs, and a Solution

// From points: a problem's costs are made by the block that iterates on them. Also what becomes of v.
std::pair<PointSolution, Columns> solve_points(const Tensor& x_given, const Tensor& y_given,
                                               const MaybeTensor& v, const MaybeTensor& a,
                                               const MaybeTensor& b, const MaybeTensor& n,
                                               const MaybeTensor& m, const MaybeTensor& start, int64_t kind,
                                               double eps, double reach, int64_t max_iter, double tol) {
  const Device device(x_given);
  Tensor x = dense(x_given), y = dense(y_given);
  STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim() && x.size(-1) == y.size(-1) && x.size(-1) > 0,
                  "geokernels: clouds must have two dimensions, and features in common");
  STD_TORCH_CHECK(0 <= kind && kind <= int64_t(PointCost::square), "geokernels: no such cost, ", kind);
  const int64_t features = x.size(-1);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end() - 1);
  shape.push_back(y.size(-2));
  Tensor costs = fresh(x, shape, stored(x) == Stored::same ? x.scalar_type() : ScalarType::Float);
  Columns columns(v, costs);
  Solution found = solve_batch(costs, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = Number<std::decay_t<decltype(batch)>>;
    const void* of_y = input<void>(y, "y", x, batch.problems * batch.columns * features, x.scalar_type());
    const PointBatch<T> points{
        x.const_data_ptr(), of_y,     static_cast<T*>(costs.mutable_data_ptr()), features,
        PointCost(kind),    stored(x)};
    launch_batch<T>(batch, Extras<T>{points, columns.of(batch, costs)}, costs, device);
  });
  return {std::tuple_cat(std::make_tuple(costs), found), columns};
}

PointSolution sinkhorn_points(const Tensor& x, const Tensor& y, const MaybeTensor& a, const MaybeTensor& b,
                              const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start,
                              int64_t kind, double eps, double reach, int64_t max_iter, double tol) {
  return solve_points(x, y, std::nullopt, a, b, n, m, start, kind, eps, reach, max_iter, tol).first;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn_points_carry(
    const Tensor& x, const Tensor& y, const Tensor& v, const MaybeTensor& a, const MaybeTensor& b,
    const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start, int64_t kind, double eps,
    double reach, int64_t max_iter, double tol) {
  auto [found, columns] = solve_points(x, y, v, a, b, n, m, start, kind, eps, reach, max_iter, tol);
  return std::tuple_cat(found, std::make_tuple(columns.carried()));
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("sinkhorn_carry", TORCH_BOX(&geokernels::sinkhorn_carry));
  m.impl("sinkhorn_points", TORCH_BOX(&geokernels::sinkhorn_points));
  m.impl("sinkhorn_points_carry", TORCH_BOX(&geokernels::sinkhorn_points_carry));
}
