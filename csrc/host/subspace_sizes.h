// The tensors of subspace_basis and its gradient: sizes, checks and memory for the results.

#pragma once

#include <algorithm>
#include <tuple>

#include "host/fresh.h"
#include "host/tensors.h"

namespace geokernels {

struct BasisResults {
  Tensor left;        // [..., R, N]
  Tensor directions;  // [..., R, D]
  Tensor values;      // [..., R]

  std::tuple<Tensor, Tensor, Tensor> all() const { return {left, directions, values}; }
};

struct BasisSizes {
  Batch batch;
  int64_t N, D, R;

  explicit BasisSizes(const Tensor& x) : batch(x, 2) {
    check_first(x, 2);
    N = x.size(-2);
    D = x.size(-1);
    R = std::min(N, D);
  }

  // From what the forward operator returned.
  BasisSizes(const Tensor& left, const Tensor& directions, const Tensor& values) : batch(left, 2) {
    check_first(left, 2);
    check_first(directions, 2);
    R = left.size(-2);
    N = left.size(-1);
    D = directions.size(-1);
    STD_TORCH_CHECK(R == std::min(N, D), "geokernels got ", R, " directions of ", N, " rows and ", D,
                    " features");
    check(directions, batch.with({R, D}), left);
    check(values, batch.with({R}), left);
  }

  BasisResults fresh_results(const Tensor& x) const {
    return {fresh(x, batch.with({R, N})), fresh(x, batch.with({R, D})), fresh(x, batch.with({R}))};
  }

  void check_gradients(const Tensor& grad_directions, const MaybeTensor& grad_values,
                       const Tensor& left) const {
    check(grad_directions, batch.with({R, D}), left);
    if (grad_values) check(*grad_values, batch.with({R}), left);
  }
};

}  // namespace geokernels
