// Point clouds as the passes over their pairs read them, and the checks that every operator on them makes.
// cpu/each_level.h, with a kernel that has cpu/transport_clouds_tiles.h in it, comes before.

#pragma once

#include <vector>

#include "host/tensors.h"

namespace geokernels {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// Points as the passes read them, and what belongs to each.
template <class T>
struct PackedCloud {
  int64_t count, whole;
  std::vector<T> panels, own, bias;

  PackedCloud(const T* points, int64_t n, int64_t features, PairCost cost) : count(n) {
    whole = round_up(n, GEOKERNELS_AT_LEVEL(cloud_panel<T>));
    panels.resize(whole * features), own.resize(whole), bias.resize(whole, -kInfinity<T>);
    GEOKERNELS_AT_LEVEL(pack_cloud<T>, points, n, features, cost, panels.data(), own.data());
  }
};

template <class T>
CloudPass<T> pass_of(const PackedCloud<T>& rows, const PackedCloud<T>& columns, int64_t features,
                     PairCost cost, T p, T temper = 1) {
  return {rows.panels.data(),
          columns.panels.data(),
          rows.bias.data(),
          columns.bias.data(),
          rows.count,
          columns.count,
          features,
          cost,
          p,
          temper};
}

// The sizes of two clouds, checked.
struct CloudSizes {
  Batch batch;
  int64_t n, m, features;

  CloudSizes(const Tensor& x, const Tensor& y) : batch(x, 2) {
    check_first(x, 2);
    check_first(y, 2);
    n = x.size(-2);
    m = y.size(-2);
    features = x.size(-1);
    STD_TORCH_CHECK(n > 0 && m > 0 && features > 0, "geokernels: clouds must not be empty");
    check(y, batch.with({m, features}), x);
  }
};

inline PairCost checked_cost(int64_t cost) {
  STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PairCost::power), "geokernels: no such cost, ", cost);
  return PairCost(cost);
}

}  // namespace geokernels
