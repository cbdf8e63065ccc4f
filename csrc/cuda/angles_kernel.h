// Principal angles between pairs of subspaces, one block a problem, CUDA.
//
//   theta = atan2(sine, cosine),   cosines: singular values of P^T Q, sines: of Q - P P^T Q
//
// p, q    [B, K, D], [B, L, D]   bases as rows, orthonormal or zero
// angles  [B, min(K, L)]         ascending
//
// A zero row stands for a direction of its own, at a right angle to everything. Both decompositions are
// cuda/jacobi.h: of the rows of q in the coordinates of P, and of what P leaves of them. Sums and products
// are in T; the order of every sum depends on the sizes alone.
//
// Limits: L <= 128 (the caller's choice: beyond, blocked library solvers win).

#pragma once

#include <cmath>

#include "cuda/subspace_kernel.h"

namespace geokernels {

template <class T>
struct AngleBatch {
  const T *p, *q;
  T* angles;
  int64_t problems, D, K, L;

  int64_t room() const { return L * (D + K + 2) + (L * sizeof(int)) / sizeof(T) + 1; }
};

// seen [L, K]: rows of q in the first basis; unseen [L, D]: what it leaves of them.
template <class T>
__device__ void split_rows(const T* p, const T* q, int64_t D, int K, int L, T* seen, T* unseen) {
  for (int r = warp(); r < L; r += kSubspaceWarps) {
    T* const own = seen + r * K;
    warp_dots(p, K, q + r * D, D, own, 1);
    __syncwarp();
    for (int64_t d = lane(); d < D; d += kWarp) {
      T left = q[r * D + d];
      for (int k = 0; k < K; ++k) left -= own[k] * p[k * D + d];
      unseen[r * D + d] = left;
    }
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kSubspaceThreads, 2)
    principal_angles_kernel(AngleBatch<T> batch, Room<T> room) {
  const int K = int(batch.K), L = int(batch.L);
  const int64_t D = batch.D;
  const int count = K < L ? K : L;
  T* const unseen = room.get();                            // [L, D]
  T* const seen = unseen + L * D;                          // [L, K]
  T* const squares = seen + L * K;                         // [L]
  T* const cosines = squares + L;                          // [L]
  int* const order = reinterpret_cast<int*>(cosines + L);  // [L]
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    const T *p = batch.p + b * K * D, *q = batch.q + b * L * D;
    split_rows(p, q, D, K, L, seen, unseen);
    orthogonalise_rows(seen, static_cast<T*>(nullptr), L, K, squares);
    sort_rows(squares, L, order);
    for (int i = threadIdx.x; i < L; i += kSubspaceThreads) cosines[i] = std::sqrt(squares[order[i]]);
    __syncthreads();
    orthogonalise_rows(unseen, static_cast<T*>(nullptr), L, D, squares);
    __syncthreads();  // the squares have been read
    // a zero row was never rotated, and is still in its place
    for (int r = warp(); r < L; r += kSubspaceWarps) {
      T size = 0;
      for (int64_t d = lane(); d < D; d += kWarp) size = std::fmax(size, std::fabs(q[r * D + d]));
      if (!(warp_max(size) > 0) && lane() == 0 && squares[r] == 0) squares[r] = 1;
    }
    __syncthreads();
    sort_rows(squares, L, order);
    for (int i = threadIdx.x; i < count; i += kSubspaceThreads)
      batch.angles[b * count + i] = std::atan2(std::sqrt(squares[order[L - 1 - i]]), cosines[i]);
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
