// Principal angles between pairs of subspaces, CUDA.
//
//   theta = atan2(sine, cosine),   cosines: singular values of P^T Q, sines: of Q - P P^T Q
//
// p, q    [B, K, D], [B, L, D]   bases as rows, orthonormal or zero
// angles  [B, min(K, L)]         ascending
//
// A zero row stands for a direction of its own, at a right angle to everything. A launch makes both matrices,
// a warp a row; their singular values are those of cuda/subspace_plan.h; a last launch puts them together.
// Sums and products are in T; the order of every sum depends on the sizes alone.
//
// Limits: L <= 128 (beyond, blocked library solvers win).

#pragma once

#include <cmath>

#include "cuda/geodesic_frame.h"
#include "cuda/subspace_plan.h"

namespace geokernels {

template <class T>
struct AngleBatch {
  const T *p, *q;
  T* angles;
  int64_t problems, D, K, L;
  T *seen, *unseen;    // [B, L, K], [B, L, D + L]   spare: q in the first basis, and what that leaves
  T *cosines, *sines;  // [B, min(K, L)], [B, L]     spare

  __host__ __device__ int64_t count() const { return K < L ? K : L; }
  __host__ __device__ int64_t rows() const { return problems * L; }
};

template <class T>
__global__ void __launch_bounds__(kGeodesicThreads, 2) split_rows_kernel(AngleBatch<T> batch, Near<T>) {
  const int64_t D = batch.D, K = batch.K, L = batch.L, width = D + L;
  for (int64_t row = blockIdx.x * kGeodesicWarps + warp(); row < batch.rows();
       row += int64_t(gridDim.x) * kGeodesicWarps) {
    const T *p = batch.p + row / L * K * D, *q = batch.q + row * D;
    T *const seen = batch.seen + row * K, *const unseen = batch.unseen + row * width;
    warp_dots(p, int(K), q, D, seen);
    __syncwarp();
    T size = 0;
    for (int64_t d = lane(); d < D; d += kWarp) {
      T left = q[d];
      size = std::fmax(size, std::fabs(left));
      for (int64_t k = 0; k < K; ++k) left -= seen[k] * p[k * D + d];
      unseen[d] = left;
    }
    const T own = warp_max(size) > 0 ? T(0) : T(1);
    for (int64_t l = lane(); l < L; l += kWarp) unseen[D + l] = l == row % L ? own : T(0);
  }
}

template <class T>
__global__ void __launch_bounds__(kGeodesicThreads, 2) measure_angles_kernel(AngleBatch<T> batch, Near<T>) {
  const int64_t count = batch.count(), all = batch.problems * count;
  for (int64_t at = int64_t(blockIdx.x) * kGeodesicThreads + threadIdx.x; at < all;
       at += int64_t(gridDim.x) * kGeodesicThreads) {
    const T sine = batch.sines[at / count * batch.L + batch.L - 1 - at % count];
    batch.angles[at] = std::atan2(sine, batch.cosines[at]);
  }
}

// Singular values of `rows` by `width` matrices.
template <class T, class Launcher>
void find_values(const T* x, T* values, int64_t problems, int64_t rows, int64_t width, Launcher& on) {
  const int64_t kept = problems * std::min(rows, width);
  find_bases<T>({x, on.memory(kept * rows), on.memory(kept * width), values, problems, rows, width, 0}, on);
}

template <class T, class Launcher>
void find_angles(AngleBatch<T> batch, Launcher& on) {
  const int64_t rows = batch.rows(), angles = batch.problems * batch.count(), width = batch.D + batch.L;
  batch.seen = on.memory(rows * batch.K), batch.unseen = on.memory(rows * width);
  batch.cosines = on.memory(angles), batch.sines = on.memory(rows);
  on.start_near(split_rows_kernel<T>, batch, (rows + kGeodesicWarps - 1) / kGeodesicWarps, 0,
                kGeodesicThreads);
  find_values(batch.seen, batch.cosines, batch.problems, batch.L, batch.K, on);
  find_values(batch.unseen, batch.sines, batch.problems, batch.L, width, on);
  on.start_near(measure_angles_kernel<T>, batch, (angles + kGeodesicThreads - 1) / kGeodesicThreads, 0,
                kGeodesicThreads);
}

}  // namespace geokernels
