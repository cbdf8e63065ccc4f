// The tensors of assignment: checks and memory for the result.

#pragma once

#include "host/fresh.h"
#include "host/tensors.h"

namespace geokernels {

// [..., N, M] costs of type T to [..., N] columns; work is called with the costs, the number of problems,
// their sizes and where the columns go.
template <class T, class Work>
Tensor assignment_of_batch(const Tensor& cost_given, const Work& work) {
  const Tensor cost = dense(cost_given);
  STD_TORCH_CHECK(
      cost.dim() >= 2 && cost.scalar_type() == (sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float),
      "geokernels: cost must be float64, or on the CPU float32, with two dimensions");
  const Batch batch(cost, 2);
  const int64_t rows = cost.size(-2), columns = cost.size(-1);
  STD_TORCH_CHECK(0 < rows && rows <= columns, "geokernels: as many columns as rows, or more");
  Tensor chosen = fresh(cost, batch.with({rows}), ScalarType::Long);
  if (batch.count > 0) work(read<T>(cost), batch.count, rows, columns, write<int64_t>(chosen));
  return chosen;
}

}  // namespace geokernels
