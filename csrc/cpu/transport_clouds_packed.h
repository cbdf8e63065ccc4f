// Point clouds as the passes over their pairs read them, and the checks that every operator on them makes.
// cpu/each_level.h, with a kernel that has cpu/transport_clouds_tiles.h in it, comes before.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "cpu/tensors.h"
#include "transport_batch.h"

namespace geokernels {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// Points as the passes read them, and what belongs to each.
template <class T>
struct PackedCloud {
  int64_t count, whole;
  std::vector<T> panels, own, bias;

  PackedCloud(const T* points, int64_t n, int64_t features, PairCost cost) : count(n) {
    int64_t panel = GEOKERNELS_AT_LEVEL(cloud_panel<T>);
    whole = (n + panel - 1) / panel * panel;
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

// The shapes that every operator here checks its inputs against.
struct CloudShapes {
  std::vector<int64_t> batch;
  int64_t problems, n, m, features;

  CloudShapes(const Tensor& x, const Tensor& y) {
    STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim(), "geokernels: clouds must have two dimensions");
    ScalarType dtype = x.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                    "geokernels: clouds must be float32 or float64");
    batch.assign(x.sizes().begin(), x.sizes().end() - 2);
    n = x.size(-2), m = y.size(-2), features = x.size(-1);
    STD_TORCH_CHECK(n > 0 && m > 0 && features > 0, "geokernels: clouds must not be empty");
    problems = x.numel() / (n * features);
  }

  std::vector<int64_t> with(std::initializer_list<int64_t> last) const {
    std::vector<int64_t> shape = batch;
    shape.insert(shape.end(), last);
    return shape;
  }
};

inline int64_t within(const int64_t* lengths, int64_t k, int64_t most) {
  return lengths ? std::min(std::max<int64_t>(lengths[k], 1), most) : most;
}

inline PairCost checked_cost(int64_t cost) {
  STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PairCost::power), "geokernels: no such cost, ", cost);
  return PairCost(cost);
}

template <class Work>
void with_type(const Tensor& like, const Work& work) {
  if (like.scalar_type() == ScalarType::Float)
    work(float());
  else
    work(double());
}

}  // namespace geokernels
