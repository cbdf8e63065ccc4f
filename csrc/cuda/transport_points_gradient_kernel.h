// The gradient of a sum of weighted costs between two clouds to the points of the first, on the GPU.
//
//   dot, angle   out_i = -sum_j w_ij y_j
//   square       out_i = 2 (sum_j w_ij) (x_i - c) - 2 sum_j w_ij (y_j - c),   c the mean of y
//
// weight  [problems, N, M]
// x, out  [problems, N, D]
// y       [problems, M, D]
//
// A block has kPanel points of x and kWidth features of one problem, a thread a tile of kTall of those points
// by kWide features in registers. kDepth points of y at a time, and the weights to them, are in shared
// memory. The mean is that of the block's features: y is read for it once more, from the cache by then. About
// the mean, what cancels is no larger than the clouds. Sums run over j in ascending order, in T, so that they
// depend on nothing but the sizes.

#pragma once

#include "core/transport_gradients.h"
#include "cuda/device.h"

namespace geokernels {

template <class T>
class PointGradient {
 public:
  static constexpr int kWarps = 5, kThreads = kWarps * kWarp;
  static constexpr int kTall = 8, kWide = 4;         // a thread's tile
  static constexpr int kWidth = kWarp / 2 * kWide;   // features of a block: half a warp beside each other
  static constexpr int kPanel = 2 * kWarps * kTall;  // points of x of a block
  static constexpr int kDepth = 32;                  // points of y at a time
  static_assert(kPanel <= kThreads, "a thread sums the weights of a point");

  // What a block has in shared memory; lines are a multiple of 16 bytes.
  struct Shared {
    alignas(16) T weight[kDepth][kPanel + 4];
    alignas(16) T y[kDepth][kWidth];
    T part[kWarps][kWidth];  // of the mean
    T mean[kWidth];
    T total[kPanel];  // of the weights
  };

  __device__ PointGradient(const PointGradientBatch<T>& batch, int64_t problem, int64_t row, int64_t feature,
                           Shared& s)
      : s(s),
        weight(batch.weight + (problem * batch.rows + row) * batch.columns),
        x(batch.x + (problem * batch.rows + row) * batch.features + feature),
        y(batch.y + problem * batch.columns * batch.features + feature),
        out(batch.out + (problem * batch.rows + row) * batch.features + feature),
        features(batch.features),
        rows(int(min_of(batch.rows - row, kPanel))),
        columns(batch.columns),
        width(int(min_of(batch.features - feature, kWidth))),
        square(batch.kind == PointCost::square) {}

  __device__ void write() {
    if (square) find_mean();
    T sums[kTall][kWide] = {}, total = 0;
    for (int64_t j = 0; j < columns; j += kDepth) {
      __syncthreads();  // the last tile has been read, the mean is there
      load(j);
      __syncthreads();
      if (int(threadIdx.x) < kPanel)
#pragma unroll 8
        for (int k = 0; k < kDepth; ++k) total += s.weight[k][threadIdx.x];
      multiply(sums, int(min_of(columns - j, kDepth)));
    }
    if (int(threadIdx.x) < kPanel) s.total[threadIdx.x] = total;
    __syncthreads();
    store(sums);
  }

 private:
  __device__ static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

  // The place of this thread's tile.
  __device__ static int top() { return (warp() * 2 + lane() / (kWarp / 2)) * kTall; }
  __device__ static int left() { return lane() % (kWarp / 2) * kWide; }

  // The mean of y, of this block's features: a warp sums every kWarps-th point.
  __device__ void find_mean() {
    constexpr int kEach = kWidth / kWarp, kAtOnce = 4;
    T sums[kEach] = {};
    for (int64_t first = warp(); first < columns; first += kAtOnce * kWarps) {
      T read[kAtOnce][kEach];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int e = 0; e < kEach; ++e) read[k][e] = of_y(first + k * kWarps, lane() + e * kWarp);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int e = 0; e < kEach; ++e) sums[e] += read[k][e];
    }
#pragma unroll
    for (int e = 0; e < kEach; ++e) s.part[warp()][lane() + e * kWarp] = sums[e];
    __syncthreads();
    const T share = T(1) / T(columns);
    for (int d = threadIdx.x; d < kWidth; d += kThreads) {
      T sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += s.part[w][d];
      s.mean[d] = share * sum;
    }
  }

  __device__ T of_y(int64_t j, int d) const { return j < columns && d < width ? y[j * features + d] : T(0); }

  // Weights to points from j on, and these about the mean; 0 beyond either.
  __device__ void load(int64_t j) {
    const int count = int(min_of(columns - j, kDepth));
    load_weights(weight + j, count);
    for (int d = lane(); d < kWidth; d += kWarp)
      load_points(y + j * features + d, d < width ? count : 0, d, square ? s.mean[d] : T(0));
  }

  // A warp has a few lines, its lanes the points of y.
  __device__ void load_weights(const T* from, int count) {
    constexpr int kAtOnce = 8, kLines = kPanel / kWarps;
    static_assert(kLines % kAtOnce == 0);
    const int first = warp() * kLines, there = lane() < count ? rows - first : 0;
    from += first * columns + lane();
#pragma unroll 1
    for (int line = 0; line < kLines; line += kAtOnce) {
      T read[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k, from += columns) read[k] = line + k < there ? *from : T(0);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) s.weight[lane()][first + line + k] = read[k];
    }
  }

  // Feature d of so many points; a warp has every kWarps-th of them.
  __device__ void load_points(const T* from, int count, int d, T mean) {
    constexpr int kEach = (kDepth + kWarps - 1) / kWarps;
    from += warp() * features;
    T read[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k, from += kWarps * features)
      read[k] = warp() + k * kWarps < count ? *from - mean : T(0);
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      if (warp() + k * kWarps < kDepth) s.y[warp() + k * kWarps][d] = read[k];
  }

  // By so many points of y.
  __device__ void multiply(T (&sums)[kTall][kWide], int count) const {
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      T up[kTall], across[kWide];
#pragma unroll
      for (int r = 0; r < kTall; ++r) up[r] = s.weight[k][top() + r];
#pragma unroll
      for (int c = 0; c < kWide; ++c) across[c] = s.y[k][left() + c];
#pragma unroll
      for (int r = 0; r < kTall; ++r)
#pragma unroll
        for (int c = 0; c < kWide; ++c) sums[r][c] += up[r] * across[c];
    }
  }

  __device__ void store(const T (&sums)[kTall][kWide]) const {
#pragma unroll
    for (int r = 0; r < kTall; ++r)
#pragma unroll
      for (int c = 0; c < kWide; ++c) {
        const int i = top() + r, d = left() + c;
        if (i >= rows || d >= width) continue;
        const T at = square ? 2 * (s.total[i] * (x[i * features + d] - s.mean[d]) - sums[r][c]) : -sums[r][c];
        out[i * features + d] = at;
      }
  }

  Shared& s;
  const T *const weight, *const x, *const y;
  T* const out;
  const int64_t features;
  const int rows;
  const int64_t columns;
  const int width;
  const bool square;
};

// Blocks of a problem: features first, so that those that read the same weights are neighbours.
template <class T>
__host__ __device__ constexpr int64_t gradient_panels(int64_t features) {
  return (features + PointGradient<T>::kWidth - 1) / PointGradient<T>::kWidth;
}

template <class T>
int64_t gradient_blocks(const PointGradientBatch<T>& batch) {
  const int64_t down = (batch.rows + PointGradient<T>::kPanel - 1) / PointGradient<T>::kPanel;
  return batch.problems * down * gradient_panels<T>(batch.features);
}

template <class T>
__global__ void __launch_bounds__(PointGradient<T>::kThreads, sizeof(T) == 4 ? 4 : 2)
    point_gradient_kernel(PointGradientBatch<T> batch) {
  using Gradient = PointGradient<T>;
  const int64_t across = gradient_panels<T>(batch.features);
  const int64_t down = (batch.rows + Gradient::kPanel - 1) / Gradient::kPanel;
  const int64_t block = blockIdx.x, problem = block / (across * down);
  const int64_t row = block / across % down * Gradient::kPanel, feature = block % across * Gradient::kWidth;
  Gradient(batch, problem, row, feature, *reinterpret_cast<typename Gradient::Shared*>(block_memory()))
      .write();
}

}  // namespace geokernels
