// The cosine of paired rows along the geodesic between two subspaces, one block a problem, CUDA.
//
//   cos = x^T G y / sqrt(x^T G x  y^T G y),   x^T G y = sum_j w+_j x+_j y+_j + w-_j x-_j y-_j
//   x+_j, x-_j = a_j . x +- q_j . x,   a_j = P u_j,  q_j = Q v_j,   P^T Q = U diag(g) V^T
//
// x, y         [B, N, D]
// p, q         [B, K, D], [B, L, D]   bases as rows, orthonormal or zero; M = max(K, L)
// cosine       [B, N]
// left, right  [B, M, M]              u_j and v_j as rows
// g            [B, M]                 cosines of the principal angles, descending
// coordinates  [B, 4, N, M]           x+, x-, y+, y-
//
// Algorithm, degenerate cases and limits are those of cpu/geodesic_kernel.h. A warp takes a row of features
// at a time; what the block shares is cuda/geodesic_frame.h. One launch. Sums and products are in T, without
// atomics: the order of every sum depends on the sizes alone.
//
// Limits: K, L <= 64 (the caller's choice: beyond, blocked library solvers win).

#pragma once

#include "cuda/geodesic_frame.h"

namespace geokernels {

template <class T>
struct CosineBatch {
  const T *x, *y, *p, *q;
  T *cosine, *left, *right, *g, *coordinates;
  int64_t problems, N, D, K, L;
  double eps;

  __host__ __device__ int64_t M() const { return K > L ? K : L; }
};

template <class T, class Room>
__global__ void __launch_bounds__(kGeodesicThreads, Room::kBlocks)
    geodesic_cosine_kernel(CosineBatch<T> batch, Room room) {
  const int M = int(batch.M()), K = int(batch.K), L = int(batch.L);
  const int64_t N = batch.N, D = batch.D;
  const Frame<T> frame(room.get(), M);
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    const T *p = batch.p + b * K * D, *q = batch.q + b * L * D;
    // the memory of the weights is free until they are computed
    decompose(p, q, D, K, L, frame, frame.c, reinterpret_cast<int*>(frame.h1));
    frame.weigh();
    T* const mine = frame.projections + warp() * 2 * frame.stride;
    for (int64_t n = warp(); n < N; n += kGeodesicWarps) {
      T* const at = batch.coordinates + (b * 4 * N + n) * M;  // x+, x-, y+, y- are N M apart
      const int64_t step = N * M;
      coordinates_of(batch.x + (b * N + n) * D, p, q, D, K, L, frame, mine, at, at + step);
      coordinates_of(batch.y + (b * N + n) * D, p, q, D, K, L, frame, mine, at + 2 * step, at + 3 * step);
      const Products<T> of(frame, at, step, T(batch.eps));
      // without direction 0, but NaN where anything is NaN or infinite
      if (lane() == 0)
        batch.cosine[b * N + n] =
            of.directed ? of.xy / (std::sqrt(of.xx) * std::sqrt(of.yy)) : 0 * (of.xx + of.yy);
    }
    for (int i = threadIdx.x; i < M * M; i += kGeodesicThreads) {
      batch.left[b * M * M + i] = frame.u[i / M * frame.stride + i % M];
      batch.right[b * M * M + i] = frame.v[i / M * frame.stride + i % M];
    }
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) batch.g[b * M + j] = frame.g[j];
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
