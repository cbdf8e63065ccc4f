// Leading directions of feature rows, and their gradient, one block a problem, CUDA.
//
//   x = sum_i s_i u_i b_i^T      s descending; b_i the directions, u_i the left vectors
//
// x           [B, N, D]
// left        [B, R, N]   u_i as rows, R = min(N, D)
// directions  [B, R, D]   b_i as rows, largest component positive; zero where s_i <= rtol * s_0
// values      [B, R]      s_i
//
// The rows of x themselves are turned until they are orthogonal (cuda/jacobi.h), in shared memory where they
// fit and else in device memory, which the L2 cache holds; no Gram matrix squares the condition. x is scaled
// by a power of two first, so that squares neither overflow nor vanish. NaN and infinities reach the values.
// Sums and products are in T; the order of every sum depends on the sizes alone. The host never waits.
//
// Limits: N <= 128 (the caller's choice: beyond, blocked library solvers win).

#pragma once

#include <cmath>

#include "cuda/jacobi.h"

namespace geokernels {

constexpr int kSubspaceThreads = 256, kSubspaceWarps = kSubspaceThreads / kWarp;

// Where a block works: its shared memory, or so many numbers of device memory each.
template <class T>
struct Room {
  T* far;  // null: shared memory
  int64_t size;

  __device__ T* get() const { return far ? far + blockIdx.x * size : reinterpret_cast<T*>(block_memory()); }
};

template <class T>
struct BasisBatch {
  const T* x;
  T *left, *directions, *values;
  int64_t problems, N, D;
  double rtol;

  int64_t room() const {
    return N * D + N * N + N + (N * sizeof(int) + kSubspaceWarps * sizeof(T)) / sizeof(T) + 2;
  }
};

// The largest size among `count` numbers, known to every thread; spare: one for each warp.
template <class T>
__device__ inline T largest_size(const T* x, int64_t count, T* spare) {
  T most = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) most = std::fmax(most, std::fabs(x[i]));
  most = warp_max(most);
  if (lane() == 0) spare[warp()] = most;
  __syncthreads();
  for (int w = 0; w < int(blockDim.x) / kWarp; ++w) most = std::fmax(most, spare[w]);
  return most;
}

// 1, or -1 where the component of largest size is negative; the positive one decides between equals.
template <class T>
__device__ inline T sign_of(const T* row, int64_t count) {
  T high = 0, low = 0;
  for (int64_t d = lane(); d < count; d += kWarp) {
    high = std::fmax(high, row[d]);
    low = std::fmax(low, -row[d]);
  }
  return warp_max(low) > warp_max(high) ? T(-1) : T(1);
}

template <class T>
__global__ void __launch_bounds__(kSubspaceThreads, 2)
    subspace_basis_kernel(BasisBatch<T> batch, Room<T> room) {
  const int N = int(batch.N), R = N < batch.D ? N : int(batch.D);
  const int64_t D = batch.D;
  T* const a = room.get();                                            // [N, D]
  T* const j = a + N * D;                                             // [N, N]
  T* const squares = j + N * N;                                       // [N]
  T* const spare = squares + N;                                       // [warps]
  int* const order = reinterpret_cast<int*>(spare + kSubspaceWarps);  // [N]
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    const T* x = batch.x + b * N * D;
    int exponent = 0;
    std::frexp(largest_size(x, N * D, spare), &exponent);
    const int lowest = std::numeric_limits<T>::min_exponent;
    exponent = exponent > lowest ? exponent : lowest;
    const T factor = std::ldexp(T(1), -exponent);
    for (int64_t i = threadIdx.x; i < N * D; i += kSubspaceThreads) a[i] = x[i] * factor;
    set_identity(j, N);
    __syncthreads();
    orthogonalise_rows(a, j, N, D, squares);
    sort_rows(squares, N, order);
    const T most = N > 0 ? std::sqrt(squares[order[0]]) : T(0);
    for (int i = warp(); i < R; i += kSubspaceWarps) {
      const int from = order[i];
      const T length = std::sqrt(squares[from]);
      const T sign = sign_of(a + from * D, D), unit = sign / length;
      const bool noise = !(length > 0) || length <= T(batch.rtol) * most;
      for (int64_t d = lane(); d < D; d += kWarp)
        batch.directions[(b * R + i) * D + d] = noise ? T(0) : a[from * D + d] * unit;
      for (int n = lane(); n < N; n += kWarp)
        batch.left[(b * R + i) * N + n] = length > 0 ? j[from * N + n] * sign : T(0);
      if (lane() == 0) batch.values[b * R + i] = std::ldexp(length, exponent);
    }
    __syncthreads();  // the room is free again
  }
}

// grad_x = sum_i u_i (grad_i / s_i + sum_j along[i, j] b_j)^T, derived in geokernels/reference/subspace.py.
template <class T>
struct BasisGradient {
  const T *grad_directions, *grad_values;  // the latter may be null, for zero
  const T *left, *directions, *values;
  T* grad_x;
  int64_t problems, N, D, rank;

  __host__ __device__ int64_t kept() const { return N < D ? N : D; }
  int64_t room() const { return kept() * kept() + (N > kept() ? N : kept()) * kept() + kept(); }
};

// out[i] = <a_i, b> for `count` rows of a, `width` apart, each along all lanes of this warp.
template <class T>
__device__ inline void warp_dots(const T* a, int count, const T* b, int64_t width, T* out, int64_t step) {
  constexpr int R = 8;  // rows at a time
  for (int first = 0; first < count; first += R) {
    T sums[R] = {};
    for (int64_t d = lane(); d < width; d += kWarp) {
      const T own = b[d];
#pragma unroll
      for (int r = 0; r < R; ++r)
        if (first + r < count) sums[r] += a[(first + r) * width + d] * own;
    }
    const T sum = sum_each<R>(sums);
    if (lane() < R && first + lane() < count) out[(first + lane()) * step] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kSubspaceThreads, 2)
    subspace_basis_backward_kernel(BasisGradient<T> batch, Room<T> room) {
  const int N = int(batch.N), R = int(batch.kept()), rank = int(batch.rank);
  const int64_t D = batch.D;
  const T closed = 8 * std::numeric_limits<T>::epsilon();
  T* const along = room.get();                    // [R, R]
  T* const seen = along + R * R;                  // [R, R], <gradient i, direction j>; later [N, R]
  T* const inverse = seen + (N > R ? N : R) * R;  // [R]   1 / s_i, 0 for what is not kept
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    const T* const directions = batch.directions + b * R * D;
    const T* const grad = batch.grad_directions + b * R * D;
    const T* const values = batch.values + b * R;
    const T* const left = batch.left + b * R * N;
    for (int i = warp(); i < R; i += kSubspaceWarps) {
      warp_dots(directions, R, grad + i * D, D, seen + i, R);
      T size = 0;
      for (int64_t d = lane(); d < D; d += kWarp) size = std::fmax(size, std::fabs(directions[i * D + d]));
      size = warp_max(size);
      if (lane() == 0) inverse[i] = i < rank && size > 0 ? 1 / values[i] : T(0);
    }
    __syncthreads();
    for (int at = threadIdx.x; at < R * R; at += kSubspaceThreads) {
      const int i = at / R, k = at % R, kept = i < k ? i : k, dropped = i < k ? k : i;
      const T gap = (values[kept] - values[dropped]) * (values[kept] + values[dropped]);
      T turn = 0;
      if (inverse[kept] > 0 && dropped >= rank && gap > closed * values[kept] * values[kept])
        turn = values[i] * seen[dropped * R + kept] / gap;
      const T own = i == k && batch.grad_values ? batch.grad_values[b * R + i] : T(0);
      along[at] = turn - seen[k * R + i] * inverse[i] + own;
    }
    __syncthreads();
    for (int at = threadIdx.x; at < N * R; at += kSubspaceThreads) {
      T total = 0;
      for (int i = 0; i < R; ++i) total += left[i * N + at / R] * along[i * R + at % R];
      seen[at] = total;
    }
    __syncthreads();
    for (int64_t at = threadIdx.x; at < N * D; at += kSubspaceThreads) {
      const int64_t n = at / D, d = at % D;
      T total = 0;
      for (int i = 0; i < R; ++i)
        total += seen[n * R + i] * directions[i * D + d] + left[i * N + n] * inverse[i] * grad[i * D + d];
      batch.grad_x[b * N * D + at] = total;
    }
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
