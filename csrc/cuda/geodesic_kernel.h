// The cosine of paired rows along the geodesic between two subspaces, and its gradient, one block a problem,
// CUDA.
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
// Algorithm, degenerate cases and limits are those of cpu/geodesic_kernel.h and
// cpu/geodesic_backward_kernel.h; the weights are core/path_formulas.h, the small singular value problem
// cuda/jacobi.h. Matrices of M x M stay in shared memory where they fit; a warp takes a row of features at a
// time. One launch forward, one backward. Sums and products are in T, without atomics: the order of every sum
// depends on the sizes alone.
//
// Limits: K, L <= 64 (the caller's choice: beyond, blocked library solvers win).

#pragma once

#include <cmath>

#include "cuda/subspace_kernel.h"

#define GEOKERNELS_LEVEL device
#include "core/path_formulas.h"
#undef GEOKERNELS_LEVEL

namespace geokernels {

constexpr int kGeodesicThreads = 256, kGeodesicWarps = kGeodesicThreads / kWarp;

template <class T>
struct CosineBatch {
  const T *x, *y, *p, *q;
  T *cosine, *left, *right, *g, *coordinates;
  int64_t problems, N, D, K, L;
  double eps;

  __host__ __device__ int64_t M() const { return K > L ? K : L; }
};

// What a block keeps of a problem. Rows of matrices lie an odd number apart, for the sake of the banks.
template <class T>
struct Frame {
  int M, stride;
  T *u, *v;                  // [M, stride]   u_j and v_j as rows
  T *g, *c, *h1, *h, *sinc;  // [M]
  T *sum, *difference;       // [M]   w+, w-
  T* projections;            // [warps, 2, stride]
  T *work, *more;            // [M, stride]

  __host__ __device__ Frame(T* memory, int M) : M(M), stride(M | 1) {
    u = memory, v = u + M * stride;
    T* at = v + M * stride;
    for (T** array : {&g, &c, &h1, &h, &sinc, &sum, &difference}) *array = at, at += M;
    projections = at;
    work = projections + kGeodesicWarps * 2 * stride;
    more = work + M * stride;
  }

  static int64_t room(int64_t M) { return 4 * M * (M | 1) + 7 * M + kGeodesicWarps * 2 * (M | 1); }

  __device__ void weigh() const {
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) {
      const device::Angle<T> angle(g[j]);
      c[j] = angle.c, h1[j] = angle.h1, h[j] = angle.h, sinc[j] = angle.sinc;
      sum[j] = angle.sum, difference[j] = angle.difference;
    }
    __syncthreads();
  }

  // sum_j w+_j x+_j y+_j + w-_j x-_j y-_j, over the lanes of this warp.
  __device__ T product(const T* x_plus, const T* x_minus, const T* y_plus, const T* y_minus) const {
    T total = 0;
    for (int j = lane(); j < M; j += kWarp)
      total += sum[j] * x_plus[j] * y_plus[j] + difference[j] * x_minus[j] * y_minus[j];
    return warp_sum(total);
  }
};

// Rows from `known` on: the coordinate axis that the rows before see least, made orthogonal to them. One
// warp.
template <class T>
__device__ void complete_rows(T* rows, int M, int stride, int known) {
  for (int j = known; j < M; ++j) {
    T* row = rows + j * stride;
    // the least seen axis: its share, and among equals the first
    T least = infinity<T>();
    int axis = M;
    for (int k = lane(); k < M; k += kWarp) {
      T seen = 0;
      for (int i = 0; i < j; ++i) seen += rows[i * stride + k] * rows[i * stride + k];
      if (seen < least) least = seen, axis = k;
    }
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, least, lanes);
      const int its = __shfl_xor_sync(kAllLanes, axis, lanes);
      if (other < least || (other == least && its < axis)) least = other, axis = its;
    }
    for (int k = lane(); k < M; k += kWarp) row[k] = k == axis;
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < j; ++i) {
        T along = 0;
        for (int k = lane(); k < M; k += kWarp) along += row[k] * rows[i * stride + k];
        along = warp_sum(along);
        for (int k = lane(); k < M; k += kWarp) row[k] -= along * rows[i * stride + k];
      }
      T square = 0;
      for (int k = lane(); k < M; k += kWarp) square += row[k] * row[k];
      const T length = std::sqrt(warp_sum(square));
      for (int k = lane(); k < M; k += kWarp) row[k] /= length;
    }
    __syncwarp();
  }
}

// u, v and g of a frame from two bases; squares, order: [M] spare.
template <class T>
__device__ void decompose(const T* p, const T* q, int64_t D, int K, int L, const Frame<T>& frame, T* squares,
                          int* order) {
  const int M = frame.M;
  T *a = frame.work, *j = frame.more;  // [M, M], the rows of q in the first basis
  for (int i = threadIdx.x; i < M * M; i += kGeodesicThreads) a[i] = 0;
  set_identity(j, M);
  __syncthreads();
  for (int r = warp(); r < L; r += kGeodesicWarps) warp_dots(p, K, q + r * D, D, a + r * M, 1);
  __syncthreads();
  orthogonalise_rows(a, j, M, M, squares);
  sort_rows(squares, M, order);
  const T noise = M * std::numeric_limits<T>::epsilon();
  for (int i = warp(); i < M; i += kGeodesicWarps) {
    const int from = order[i];
    const T length = std::sqrt(squares[from]), unit = length > noise ? 1 / length : T(0);
    for (int k = lane(); k < M; k += kWarp) {
      frame.u[i * frame.stride + k] = a[from * M + k] * unit;
      frame.v[i * frame.stride + k] = j[from * M + k];
    }
    if (lane() == 0) frame.g[i] = length;
  }
  __syncthreads();
  // below rounding, what is left of a row has no direction: any u_j orthogonal to the others will do
  int known = 0;
  while (known < M && frame.g[known] > noise) ++known;
  if (warp() == 0) complete_rows(frame.u, M, frame.stride, known);
  __syncthreads();
}

// x+ and x- of one row by one warp; mine: its projections, [2, stride] spare.
template <class T>
__device__ void coordinates_of(const T* row, const T* p, const T* q, int64_t D, int K, int L,
                               const Frame<T>& frame, T* mine, T* plus, T* minus) {
  T *on_p = mine, *on_q = mine + frame.stride;
  warp_dots(p, K, row, D, on_p, 1);
  warp_dots(q, L, row, D, on_q, 1);
  __syncwarp();
  for (int j = lane(); j < frame.M; j += kWarp) {
    T a = 0, b = 0;
    for (int k = 0; k < K; ++k) a += on_p[k] * frame.u[j * frame.stride + k];
    for (int k = 0; k < L; ++k) b += on_q[k] * frame.v[j * frame.stride + k];
    plus[j] = a + b;
    minus[j] = a - b;
  }
  __syncwarp();
}

template <class T>
__global__ void __launch_bounds__(kGeodesicThreads, 1)
    geodesic_cosine_kernel(CosineBatch<T> batch, Room<T> room) {
  const int M = int(batch.M()), K = int(batch.K), L = int(batch.L);
  const int64_t N = batch.N, D = batch.D;
  const Frame<T> frame(room.get(), M);
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    const T *p = batch.p + b * K * D, *q = batch.q + b * L * D;
    // what the weights need afterwards is spare until then
    decompose(p, q, D, K, L, frame, frame.c, reinterpret_cast<int*>(frame.h1));
    frame.weigh();
    T* const mine = frame.projections + warp() * 2 * frame.stride;
    for (int64_t n = warp(); n < N; n += kGeodesicWarps) {
      T* const at = batch.coordinates + (b * 4 * N + n) * M;  // x+, x-, y+, y- are N M apart
      const int64_t step = N * M;
      coordinates_of(batch.x + (b * N + n) * D, p, q, D, K, L, frame, mine, at, at + step);
      coordinates_of(batch.y + (b * N + n) * D, p, q, D, K, L, frame, mine, at + 2 * step, at + 3 * step);
      const T xx = frame.product(at, at + step, at, at + step);
      const T xy = frame.product(at, at + step, at + 2 * step, at + 3 * step);
      const T yy = frame.product(at + 2 * step, at + 3 * step, at + 2 * step, at + 3 * step);
      // without direction 0, but NaN where anything is NaN or infinite
      const bool directed = xx > T(batch.eps) && yy > T(batch.eps);
      if (lane() == 0)
        batch.cosine[b * N + n] = directed ? xy / (std::sqrt(xx) * std::sqrt(yy)) : 0 * (xx + yy);
    }
    for (int i = threadIdx.x; i < M * M; i += kGeodesicThreads) {
      batch.left[b * M * M + i] = frame.u[i / M * frame.stride + i % M];
      batch.right[b * M * M + i] = frame.v[i / M * frame.stride + i % M];
    }
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) batch.g[b * M + j] = frame.g[j];
    __syncthreads();  // the room is free again
  }
}

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
  const T xx = frame.product(xs, xs + step, xs, xs + step);
  const T xy = frame.product(xs, xs + step, xs + 2 * step, xs + 3 * step);
  const T yy = frame.product(xs + 2 * step, xs + 3 * step, xs + 2 * step, xs + 3 * step);
  const bool directed = xx > T(batch.eps) && yy > T(batch.eps);
  const T both = directed ? batch.grad[b * batch.N + n] / (std::sqrt(xx) * std::sqrt(yy)) / 2 : T(0);
  const T own[2] = {directed ? -both * xy / xx : T(0), directed ? -both * xy / yy : T(0)};
  for (int side = 0; side < 2; ++side) {
    T *along = mine, *across = mine + frame.stride;
    for (int j = lane(); j < M; j += kWarp) {
      T turned[2];
      for (int sign = 0; sign < 2; ++sign) {
        const T self = xs[(2 * side + sign) * step + j], other = xs[(2 - 2 * side + sign) * step + j];
        turned[sign] = directed ? own[side] * self + both * other : T(0);
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
  // sum_n x_n turned_n^T + y_n turned_n^T, of x+- and turned+-
  auto outer = [&](int i, int first, int j, int second) {
    T total = 0;
    for (int side = 0; side < 2; ++side)
      for (int64_t n = 0; n < N; ++n)
        total += xs[(2 * side + first) * step + n * M + i] * ts[(2 * side + second) * step + n * M + j];
    return total;
  };
  for (int at = threadIdx.x; at < M * M; at += kGeodesicThreads) {
    const int i = at / M, j = at % M;
    const T twist = mixed_at(frame, i, j) * outer(i, 0, j, 1),
            back = mixed_at(frame, j, i) * outer(j, 0, i, 1);
    T sum, difference;
    device::divided_differences<T>(frame.c[i], frame.h[i], frame.h1[i], frame.sinc[i], frame.sum[i],
                                   frame.difference[i], frame.c[j], frame.h[j], sum, difference);
    frame.work[i * S + j] = sum * outer(i, 0, j, 0) + difference * outer(i, 1, j, 1) + (back - twist);
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
      for (int64_t n = 0; n < N; ++n)
        total += on_x[n * M + k] * x[n * D + d] + on_y[n * M + k] * y[n * D + d];
      for (int l = 0; l < L; ++l) total += overlap[k * down + l * along] * other[l * D + d];
      out[k * D + d] = zero ? T(0) : total;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kGeodesicThreads, 1)
    geodesic_cosine_backward_kernel(CosineGradient<T> batch, Room<T> room) {
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
      T* const to[2] = {batch.to_x, batch.to_y};
      for (int side = 0; side < 2; ++side) {
        if (!to[side]) continue;
        const T* on = batch.on + (b * 4 + 2 * side) * step + n * M;
        for (int64_t d = lane(); d < D; d += kWarp) {
          T total = 0;
          for (int k = 0; k < K; ++k) total += on[k] * p[k * D + d];
          for (int l = 0; l < L; ++l) total += on[step + l] * q[l * D + d];
          to[side][(b * N + n) * D + d] = total;
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
