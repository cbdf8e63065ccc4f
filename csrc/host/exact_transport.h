// The tensors of exact transport: checks and memory for the results.

#pragma once

#include <tuple>

#include "host/fresh.h"
#include "host/tensors.h"

namespace geokernels {

// Of a batch: value [...], f [..., N], g [..., M], rows, columns and mass [..., N + M - 1], ending [...].
using ExactTransportTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
struct ExactTransportBatch {
  const T *cost, *a, *b;  // a, b: null where none are given
  int64_t problems, n, m;
  T *value, *f, *g;
  int64_t *rows, *columns;
  T* mass;
  int64_t* ending;
};

// Calls work(ExactTransportBatch<T>) where there is a problem.
template <class Work>
ExactTransportTensors exact_transport_of_batch(const Tensor& cost_given, const MaybeTensor& a_given,
                                               const MaybeTensor& b_given, const Work& work) {
  const Tensor cost = dense(cost_given);
  const MaybeTensor a = dense(a_given), b = dense(b_given);
  check_first(cost, 2);
  const Batch batch(cost, 2);
  const int64_t n = cost.size(-2), m = cost.size(-1);
  STD_TORCH_CHECK(0 < n && 0 < m && n + m < int64_t(1) << 30,
                  "geokernels: a row, a column, and fewer than 2^30");
  if (a) check(*a, batch.with({n}), cost);
  if (b) check(*b, batch.with({m}), cost);
  const auto pairs = batch.with({n + m - 1});
  Tensor value = fresh(cost, batch.sizes), f = fresh(cost, batch.with({n})), g = fresh(cost, batch.with({m}));
  Tensor rows = fresh(cost, pairs, ScalarType::Long), columns = fresh(cost, pairs, ScalarType::Long);
  Tensor mass = fresh(cost, pairs), ending = fresh(cost, batch.sizes, ScalarType::Long);
  if (batch.count > 0)
    with_type(cost, [&](auto zero) {
      using T = decltype(zero);
      work(ExactTransportBatch<T>{read<T>(cost), a ? read<T>(*a) : nullptr, b ? read<T>(*b) : nullptr,
                                  batch.count, n, m, write<T>(value), write<T>(f), write<T>(g),
                                  write<int64_t>(rows), write<int64_t>(columns), write<T>(mass),
                                  write<int64_t>(ending)});
    });
  return {value, f, g, rows, columns, mass, ending};
}

}  // namespace geokernels
