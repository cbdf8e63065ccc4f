// Sums over the pairs of two point clouds and of their plan, without a matrix of all pairs. The passes are
// cpu/transport_clouds_products_kernel.h; blocks of rows are shared out to the threads.

#include <optional>

#include "core/transport_clouds.h"
#include "cpu/workers.h"
#include "host/fresh.h"
#include "host/operators.h"

#define GEOKERNELS_KERNEL "cpu/transport_clouds_products_kernel.h"
#include "cpu/each_level.h"
// after the kernel that packs
#include "cpu/transport_clouds_packed.h"

namespace geokernels {
namespace {

template <class T, class Work>
void each_block(Watch& watch, int64_t rows, int64_t columns_of_sums, const Work& work) {
  int64_t block = GEOKERNELS_AT_LEVEL(cloud_block<T>);
  int64_t memory = GEOKERNELS_AT_LEVEL(cloud_memory<T>, columns_of_sums);
  share_out<T>(watch, round_up(rows, block) / block, memory, work);
}

// Two clouds, their potentials and what multiplies the pairs of one problem, packed.
template <class T>
struct PackedPairs {
  using Number = T;

  PackedCloud<T> x, y;
  std::optional<PackedCloud<T>> left, right;
  PairFactor<T> factor{nullptr, nullptr, 0};
  CloudPass<T> pass;

  PackedPairs(const CloudSizes& s, const T* x_points, const T* y_points, const T* f, const T* g,
              const T* left_rows, const T* right_rows, int64_t rank, PairCost cost, double p)
      : x(x_points, s.n, s.features, cost), y(y_points, s.m, s.features, cost) {
    for (int64_t i = 0; i < s.n; ++i) x.bias[i] = x.own[i] + f[i];
    for (int64_t j = 0; j < s.m; ++j) y.bias[j] = y.own[j] + g[j];
    pass = pass_of(x, y, s.features, cost, T(p));
    if (!left_rows) return;
    left.emplace(left_rows, s.n, rank, PairCost::dot), right.emplace(right_rows, s.m, rank, PairCost::dot);
    factor = {left->panels.data(), right->panels.data(), rank};
  }
};

// The tensors of a sum over pairs, checked; work(PackedPairs<T>, problem, watch) is called for each problem.
template <class Work>
void each_pair_of_clouds(const CloudSizes& s, const Tensor& x, const Tensor& y, const Tensor& f,
                         const Tensor& g, const MaybeTensor& left, const MaybeTensor& right, PairCost cost,
                         double p, const Work& work) {
  STD_TORCH_CHECK(left.has_value() == right.has_value() && (!left || left->size(-1) == right->size(-1)),
                  "geokernels: left and right come together, with the same rank");
  int64_t rank = left ? left->size(-1) : 0;
  STD_TORCH_CHECK(!left || rank > 0, "geokernels: left and right must have a rank");
  MaybeTensor inputs[] = {dense(f), dense(g), dense(left), dense(right)};
  Watch watch;
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    ScalarType dtype = x.scalar_type();
    int64_t rows = s.batch.count * s.n, columns = s.batch.count * s.m;
    const T* of_x = input<T>(inputs[0], "f", x, rows, dtype);
    const T* of_y = input<T>(inputs[1], "g", x, columns, dtype);
    const T* left_rows = input<T>(inputs[2], "left", x, rows * rank, dtype);
    const T* right_rows = input<T>(inputs[3], "right", x, columns * rank, dtype);
    for (int64_t k = 0; k < s.batch.count && !watch.stop(); ++k)
      work(PackedPairs<T>(s, read<T>(x) + k * s.n * s.features, read<T>(y) + k * s.m * s.features,
                          of_x + k * s.n, of_y + k * s.m, left_rows ? left_rows + k * s.n * rank : nullptr,
                          right_rows ? right_rows + k * s.m * rank : nullptr, rank, cost, p),
           k, watch);
  });
  watch.end();
}

// sum_j E_ij <left_i, right_j> v_j, E_ij = exp(f_i + g_j - C_ij)
Tensor multiply_clouds(const Tensor& x_given, const Tensor& y_given, const Tensor& f, const Tensor& g,
                       const MaybeTensor& left, const MaybeTensor& right, const Tensor& v_given, int64_t cost,
                       double p) {
  Tensor x = dense(x_given), y = dense(y_given);
  Tensor v = dense(v_given);
  CloudSizes s(x, y);
  int64_t columns = v.size(-1);
  Tensor out = fresh(x, s.batch.with({s.n, columns}));
  if (columns == 0) return out;
  each_pair_of_clouds(
      s, x, y, f, g, left, right, checked_cost(cost), p, [&](const auto& pairs, int64_t k, Watch& watch) {
        using T = typename std::decay_t<decltype(pairs)>::Number;
        const T* of_v =
            input<T>(v, "v", x, s.batch.count * s.m * columns, x.scalar_type()) + k * s.m * columns;
        T* to = write<T>(out) + k * s.n * columns;
        each_block<T>(watch, s.n, columns, [&](int64_t block, Workspace<T> memory) {
          GEOKERNELS_AT_LEVEL(multiply_cloud<T>, pairs.pass, block, pairs.factor, of_v, columns, to, memory);
        });
      });
  return out;
}

// sum_j E_ij <left_i, right_j> dC_ij / dx_i, for the costs whose derivative is no product
Tensor differentiate_clouds(const Tensor& x_given, const Tensor& y_given, const Tensor& f, const Tensor& g,
                            const Tensor& left, const Tensor& right, int64_t cost_given, double p) {
  Tensor x = dense(x_given), y = dense(y_given);
  CloudSizes s(x, y);
  PairCost cost = checked_cost(cost_given);
  STD_TORCH_CHECK(cost == PairCost::root || cost == PairCost::power,
                  "geokernels: the derivative of a Gram cost is a product");
  Tensor out = fresh(x, s.batch.with({s.n, s.features}));
  each_pair_of_clouds(s, x, y, f, g, left, right, cost, p, [&](const auto& pairs, int64_t k, Watch& watch) {
    using T = typename std::decay_t<decltype(pairs)>::Number;
    const T *of_x = read<T>(x) + k * s.n * s.features, *of_y = read<T>(y) + k * s.m * s.features;
    T* to = write<T>(out) + k * s.n * s.features;
    each_block<T>(watch, s.n, s.features, [&](int64_t block, Workspace<T> memory) {
      GEOKERNELS_AT_LEVEL(differentiate_cloud<T>, pairs.pass, block, pairs.factor, of_x, of_y, to, memory);
    });
  });
  return out;
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) {
  m.impl("multiply_clouds", TORCH_BOX(&geokernels::multiply_clouds));
  m.impl("differentiate_clouds", TORCH_BOX(&geokernels::differentiate_clouds));
}
