// Entropic transport of small problems on the GPU: how its kernel is launched, and registration.
// The kernel is cuda/transport_kernel.h.

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/launch.h"
#include "cuda/transport_kernel.h"
#include "host/operators.h"
#include "host/transport_batch.h"

namespace geokernels {
namespace {

// What a launch is given beside its batch.
template <class T>
struct Extras {
  PointBatch<T> points{};
  Carried<T> carried{};
};

// Device memory for what of K is not in shared memory: enough for the blocks that run at once.
template <class T, class L>
void launch_layout(const TransportBatch<T>& batch, const Extras<T>& extras, const Tensor& like,
                   const Device& device) {
  const int64_t room = device.block_memory();
  const Places found = places<T, L>(batch.rows, room, extras.points.x, extras.carried.v);
  STD_TORCH_CHECK(found.memory <= room, "geokernels: transport between ", batch.rows, " and ", batch.columns,
                  " points needs ", found.memory, " bytes of shared memory a block, this GPU has ", room);
  int64_t blocks = batch.problems;
  Store<T> store{found.near_groups, nullptr, found.far_size};
  MaybeTensor far;
  if (store.far_size > 0) {
    blocks = std::min(blocks, device.property(cudaDevAttrMultiProcessorCount));
    far = fresh(like, {blocks, store.far_size});
    store.far = write<T>(*far);
  }
  launch(sinkhorn_kernel<T, L>, blocks, L::kThreads, found.memory, device.stream(), batch, store,
         extras.points, extras.carried);
}

// Columns that the plan is multiplied by, and their products; nothing where no columns are given.
class Columns {
 public:
  Columns(const MaybeTensor& v, const Tensor& costs) : given_(dense(v)) {
    if (!given_) return;
    width_ = given_->size(-1);
    carried_ = fresh(costs, Batch(costs, 1).with({width_}));
  }

  template <class T>
  Carried<T> of(const TransportBatch<T>& batch, const Tensor& costs) {
    if (!given_ || width_ == 0) return {};
    const int64_t numel = batch.problems * batch.columns * width_;
    return {input<T>(given_, "v", costs, numel, costs.scalar_type()), write<T>(*carried_), width_};
  }

  Tensor carried() const { return *carried_; }

 private:
  MaybeTensor given_, carried_;
  int64_t width_ = 0;
};

template <class T>
void launch_batch(const TransportBatch<T>& batch, const Extras<T>& extras, const Tensor& like,
                  const Device& device) {
  with_layout<T>(batch.rows, batch.columns,
                 [&](auto layout) { launch_layout<T, decltype(layout)>(batch, extras, like, device); });
}

Solution solve_costs(const Tensor& cost, Columns& columns, const TransportArguments& with) {
  const Device device(cost);
  return solve_batch(cost, with, [&](const auto& batch) {
    using T = typename std::decay_t<decltype(batch)>::Number;
    launch_batch<T>(batch, Extras<T>{{}, columns.of(batch, cost)}, cost, device);
  });
}

Solution sinkhorn(const Tensor& cost, const MaybeTensor& a, const MaybeTensor& b, const MaybeTensor& n,
                  const MaybeTensor& m, const MaybeTensor& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  Columns none(std::nullopt, cost);
  return solve_costs(cost, none, {a, b, n, m, start, eps, reach, max_iter, tol});
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn_carry(
    const Tensor& cost, const Tensor& v, const MaybeTensor& a, const MaybeTensor& b, const MaybeTensor& n,
    const MaybeTensor& m, const MaybeTensor& start, double eps, double reach, int64_t max_iter, double tol) {
  Columns columns(v, cost);
  const Solution solution = solve_costs(cost, columns, {a, b, n, m, start, eps, reach, max_iter, tol});
  return std::tuple_cat(solution, std::make_tuple(columns.carried()));
}

Stored stored(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  return dtype == ScalarType::Half       ? Stored::half
         : dtype == ScalarType::BFloat16 ? Stored::bfloat16
                                         : Stored::same;
}

// From points: a problem's costs are made by the block that iterates on them. Also the product of the plan
// with v.
std::pair<PointSolution, Columns> solve_points(const Tensor& x, const Tensor& y, const MaybeTensor& v,
                                               int64_t kind, const TransportArguments& with) {
  const Device device(x);
  const Points given(x, y, kind);
  const Stored as = stored(x);
  Tensor costs = given.fresh_costs(as == Stored::same ? x.scalar_type() : ScalarType::Float);
  Columns columns(v, costs);
  const Solution solution = solve_batch(costs, with, [&](const auto& batch) {
    using T = typename std::decay_t<decltype(batch)>::Number;
    const PointBatch<T> points{
        given.x.const_data_ptr(), given.y.const_data_ptr(), write<T>(costs), given.features, given.kind, as};
    launch_batch<T>(batch, Extras<T>{points, columns.of(batch, costs)}, costs, device);
  });
  return {std::tuple_cat(std::make_tuple(costs), solution), columns};
}

PointSolution sinkhorn_points(const Tensor& x, const Tensor& y, const MaybeTensor& a, const MaybeTensor& b,
                              const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start,
                              int64_t kind, double eps, double reach, int64_t max_iter, double tol) {
  return solve_points(x, y, std::nullopt, kind, {a, b, n, m, start, eps, reach, max_iter, tol}).first;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn_points_carry(
    const Tensor& x, const Tensor& y, const Tensor& v, const MaybeTensor& a, const MaybeTensor& b,
    const MaybeTensor& n, const MaybeTensor& m, const MaybeTensor& start, int64_t kind, double eps,
    double reach, int64_t max_iter, double tol) {
  auto [solution, columns] = solve_points(x, y, v, kind, {a, b, n, m, start, eps, reach, max_iter, tol});
  return std::tuple_cat(solution, std::make_tuple(columns.carried()));
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CUDA, m) {
  m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn));
  m.impl("sinkhorn_carry", TORCH_BOX(&geokernels::sinkhorn_carry));
  m.impl("sinkhorn_points", TORCH_BOX(&geokernels::sinkhorn_points));
  m.impl("sinkhorn_points_carry", TORCH_BOX(&geokernels::sinkhorn_points_carry));
}
