// The plan of potentials relative to the product of the weights, on the GPU: core/transport_density.h, once a
// pair.
//
// A warp has a row, its lanes the columns. Costs are read and results written once, kAtOnce of each before
// any is waited for: nothing is computed that memory would not have to be waited for.

#pragma once

#include "core/transport_gradients.h"
#include "cuda/device.h"
#include "cuda/formulas.h"

namespace geokernels {

constexpr int kDensityWarps = 8;  // a block: a row each

template <class T>
__global__ void __launch_bounds__(kDensityWarps* kWarp, sizeof(T) == 4 ? 6 : 4)
    density_kernel(DensityBatch<T> batch) {
  constexpr int kAtOnce = 4;
  const int64_t row = int64_t(blockIdx.x) * kDensityWarps + warp(), problem = row / batch.rows;
  if (problem >= batch.problems) return;
  const T f = batch.f[row];
  const T* const cost = batch.cost + row * batch.columns;
  const T* const g = batch.g + problem * batch.columns;
  T* const out = batch.out + row * batch.columns;
  for (int64_t first = lane(); first < batch.columns; first += kAtOnce * kWarp) {
    T costs[kAtOnce], potentials[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t j = first + k * kWarp;
      costs[k] = j < batch.columns ? cost[j] : T(0);
      potentials[k] = j < batch.columns ? g[j] : T(0);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (first + k * kWarp < batch.columns)
        out[first + k * kWarp] = device::density_of<T>(f, potentials[k], costs[k], batch.inverse);
  }
}

}  // namespace geokernels
