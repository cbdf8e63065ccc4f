// Gradient of the geodesic cosine to rows and bases, one block a problem, CUDA.
//
// Shapes are those of cuda/geodesic_kernel.h, whose frame and coordinates it is given; the formulas,
// degenerate cases and limits those of cpu/geodesic_backward_kernel.h. One launch. Sums and products are in
// T, without atomics: the order of every sum depends on the sizes alone.

#pragma once

#include "cuda/geodesic_frame.h"

namespace geokernels {

template <class T>
struct CosineGradient {
  const T *grad, *x, *y, *p, *q, *left, *right, *g, *coordinates;
  T *to_x, *to_y, *to_p, *to_q;  // null where not wanted
  T* turned;                     // [B, 4, N, M]   spare
  T* on;                         // [B, 4, N, M]   spare: gradients to P^T x, Q^T x, P^T y, Q^T y
  int64_t problems, N, D, K, L;
  double eps;

  __host__ __device__ int64_t M() const { return K > L ? K : L; }
};

// Row n's turned coordinates, and its gradients to the projections; one warp.
template <class T>
__device__ void turn_row(const CosineGradient<T>& batch, const Frame<T>& frame, int64_t b, int64_t n,
                         T* mine) {
  const int M = frame.M;
  const int64_t step = batch.N * M, at = (b * 4 * batch.N + n) * M;
  const T* xs = batch.coordinates + at;
  const Products<T> of(frame, xs, step, T(batch.eps));
  const bool directed = of.directed;
  const T both = directed ? batch.grad[b * batch.N + n] / (std::sqrt(of.xx) * std::sqrt(of.yy)) / 2 : T(0);
  for (int side = 0; side < 2; ++side) {
    // selected, as arrays indexed by the side would be put into local memory
    const T square = side ? of.yy : of.xx;
    const T scale = side ? of.y.scale : of.x.scale, scale_of_other = side ? of.x.scale : of.y.scale;
    const T own = directed ? -both * of.xy / square : T(0);
    T *along = mine, *across = mine + frame.stride;
    for (int j = lane(); j < M; j += kWarp) {
      T turned[2];
      for (int sign = 0; sign < 2; ++sign) {
        const T self = xs[(2 * side + sign) * step + j] * scale;
        const T other = xs[(2 - 2 * side + sign) * step + j] * scale_of_other;
        turned[sign] = directed ? (own * self + both * other) * scale : T(0);
        batch.turned[at + (2 * side + sign) * step + j] = turned[sign];
      }
      const T plus = 2 * frame.sum[j] * turned[0], minus = 2 * frame.difference[j] * turned[1];
      along[j] = plus + minus;
      across[j] = plus - minus;
    }
    __syncwarp();
    for (int k = lane(); k < M; k += kWarp) {
      T on_p = 0, on_q = 0;
      for (int j = 0; j < M; ++j) {
        on_p += along[j] * frame.u[j * frame.stride + k];
        on_q += across[j] * frame.v[j * frame.stride + k];
      }
      batch.on[at + 2 * side * step + k] = on_p;
      batch.on[at + (2 * side + 1) * step + k] = on_q;
    }
    __syncwarp();
  }
}

template <class T>
__device__ inline T mixed_at(const Frame<T>& frame, int i, int j) {
  return device::mixed_difference<T>(frame.g[i], frame.g[j], frame.sum[i], frame.difference[j]);
}

// Gradient to P^T Q into frame.work, [M, stride]; frame.more is spare.
template <class T>
__device__ void overlap_gradient(const CosineGradient<T>& batch, const Frame<T>& frame, int64_t b) {
  const int M = frame.M, S = frame.stride;
  const int64_t N = batch.N, step = N * M;
  const T *xs = batch.coordinates + b * 4 * step, *ts = batch.turned + b * 4 * step;
  for (int at = threadIdx.x; at < M * M; at += kGeodesicThreads) {
    const int i = at / M, j = at % M;
    // sum_n x_n turned_n^T + y_n turned_n^T, of x+- and turned+-
    T plus = 0, minus = 0, twist = 0, back = 0;
    for (int side = 0; side < 4; side += 2)
      for (int64_t n = 0; n < N; ++n) {
        const T *x = xs + side * step + n * M, *turned = ts + side * step + n * M;
        plus += x[i] * turned[j];
        minus += x[step + i] * turned[step + j];
        twist += x[i] * turned[step + j];
        back += x[j] * turned[step + i];
      }
    T sum, difference;
    device::divided_differences<T>(frame.c[i], frame.h[i], frame.h1[i], frame.sinc[i], frame.sum[i],
                                   frame.difference[i], frame.c[j], frame.h[j], sum, difference);
    frame.work[i * S + j] =
        sum * plus + difference * minus + (mixed_at(frame, j, i) * back - mixed_at(frame, i, j) * twist);
  }
  __syncthreads();
  // inner V, then U^T of it
  for (int at = threadIdx.x; at < M * M; at += kGeodesicThreads) {
    const int i = at / M, l = at % M;
    T total = 0;
    for (int j = 0; j < M; ++j) total += frame.work[i * S + j] * frame.v[j * S + l];
    frame.more[i * S + l] = total;
  }
  __syncthreads();
  for (int at = threadIdx.x; at < M * M; at += kGeodesicThreads) {
    const int k = at / M, l = at % M;
    T total = 0;
    for (int i = 0; i < M; ++i) total += frame.u[i * S + k] * frame.more[i * S + l];
    frame.work[k * S + l] = total;
  }
  __syncthreads();
}

// Gradient to one basis: rows [K, D] from `on` of both sides, and from the overlap with the `other` basis [L,
// D], whose coefficient for (k, l) is overlap[k down + l along].
template <class T>
__device__ void basis_gradient(const CosineGradient<T>& batch, int64_t b, int M, const T* basis,
                               const T* other, int which, const T* overlap, int down, int along, int K, int L,
                               T* out) {
  const int64_t N = batch.N, D = batch.D, step = N * M;
  const T* on_x = batch.on + (b * 4 + which) * step;
  const T* on_y = batch.on + (b * 4 + 2 + which) * step;
  const T *x = batch.x + b * N * D, *y = batch.y + b * N * D;
  for (int k = warp(); k < K; k += kGeodesicWarps) {
    T size = 0;
    for (int64_t d = lane(); d < D; d += kWarp) size = std::fmax(size, std::fabs(basis[k * D + d]));
    const bool zero = !(warp_max(size) > 0);
    for (int64_t d = lane(); d < D; d += kWarp) {
      T total = 0;
#pragma unroll 2
      for (int64_t n = 0; n < N; ++n)
        total += on_x[n * M + k] * x[n * D + d] + on_y[n * M + k] * y[n * D + d];
      for (int l = 0; l < L; ++l) total += overlap[k * down + l * along] * other[l * D + d];
      out[k * D + d] = zero ? T(0) : total;
    }
  }
}

template <class T, class Room>
__global__ void __launch_bounds__(kGeodesicThreads, Room::kBlocks)
    geodesic_cosine_backward_kernel(CosineGradient<T> batch, Room room) {
  const int M = int(batch.M()), K = int(batch.K), L = int(batch.L);
  const int64_t N = batch.N, D = batch.D, step = N * M;
  const Frame<T> frame(room.get(), M);
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    for (int i = threadIdx.x; i < M * M; i += kGeodesicThreads) {
      frame.u[i / M * frame.stride + i % M] = batch.left[b * M * M + i];
      frame.v[i / M * frame.stride + i % M] = batch.right[b * M * M + i];
    }
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) frame.g[j] = batch.g[b * M + j];
    __syncthreads();
    frame.weigh();
    const T *p = batch.p + b * K * D, *q = batch.q + b * L * D;
    T* const mine = frame.projections + warp() * 2 * frame.stride;
    for (int64_t n = warp(); n < N; n += kGeodesicWarps) {
      turn_row(batch, frame, b, n, mine);
      for (int side = 0; side < 2; ++side) {
        T* const to = side ? batch.to_y : batch.to_x;
        if (!to) continue;
        const T* on = batch.on + (b * 4 + 2 * side) * step + n * M;
        for (int64_t d = lane(); d < D; d += kWarp) {
          T total = 0;
          for (int k = 0; k < K; ++k) total += on[k] * p[k * D + d];
          for (int l = 0; l < L; ++l) total += on[step + l] * q[l * D + d];
          to[(b * N + n) * D + d] = total;
        }
      }
    }
    __syncthreads();
    if (batch.to_p || batch.to_q) {
      overlap_gradient(batch, frame, b);
      const int S = frame.stride;
      if (batch.to_p) basis_gradient(batch, b, M, p, q, 0, frame.work, S, 1, K, L, batch.to_p + b * K * D);
      if (batch.to_q) basis_gradient(batch, b, M, q, p, 1, frame.work, 1, S, L, K, batch.to_q + b * L * D);
    }
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
