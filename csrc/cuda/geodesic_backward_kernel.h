// Gradient of the geodesic cosine to rows and bases, one block a problem, CUDA.
//
// Shapes are those of cuda/geodesic_kernel.h, whose frame and coordinates it is given; the formulas,
// degenerate cases and limits those of cpu/geodesic_backward_kernel.h. One launch. Sums and products are in
// T, without atomics: the order of every sum depends on the sizes alone.

#pragma once

#include "cuda/geodesic_frame.h"
#include "cuda/subspace_directions.h"

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

// A matrix product: sum_k by[r down + k along] rows_k for row r.
template <class T>
struct Product {
  const T* by;
  int down, along;
  const T* rows;  // [count, D]
  int count;

  // To the sums of rows r to r + 3, of which `last` is the last there is.
  __device__ void add(int r, int last, int64_t first, int64_t D, bool packs,
                      Share<T> (&sums)[kDirections]) const {
    const auto times = [&](int i, int k) {
      const T* const own = by + (r + i < last ? r + i : last) * down;
      Pack<T> found;
#pragma unroll
      for (int e = 0; e < found.kCount; ++e) found.at[e] = k + e < count ? own[(k + e) * along] : T(0);
      return found;
    };
    combine_unit(times, rows + first, D, D - first, packs, count, sums);
  }
};

// out [rows, D] = the sum of products; 0 where dead[r] is not 0, if there is such an array. A warp makes four
// rows of 128 features at a time.
template <class T, class... Products>
__device__ void write_products(int rows, int64_t D, const T* dead, T* out, const Products&... products) {
  const bool packs = (in_packs(products.rows, D) && ...);
  each_of_directions(0, rows, D, [&](int r, int64_t first) {
    Share<T> sums[kDirections] = {};
    (products.add(r, rows - 1, first, D, packs, sums), ...);
#pragma unroll
    for (int i = 0; i < kDirections; ++i) {
      if (r + i >= rows) break;
      if (dead && dead[r + i] != 0) sums[i].clear();
      sums[i].store_some(out + (r + i) * D + first, D - first, in_packs(out, D));
    }
  });
}

// dead[k] = 1 for zero rows of a basis [K, D], else 0.
template <class T>
__device__ void find_dead(const T* basis, int K, int64_t D, T* dead) {
  for (int k = warp(); k < K; k += kGeodesicWarps) {
    T size = 0;
    for (int64_t d = lane(); d < D; d += kWarp) size = std::fmax(size, std::fabs(basis[k * D + d]));
    size = warp_max(size);
    if (lane() == 0) dead[k] = size > 0 ? T(0) : T(1);
  }
}

// Gradients to the rows and bases of problem b, from those to their products.
template <class T>
__device__ void spread_gradients(const CosineGradient<T>& batch, const Frame<T>& frame, int64_t b) {
  const int M = frame.M, K = int(batch.K), L = int(batch.L);
  const int N = int(batch.N);
  const int64_t D = batch.D, step = batch.N * M;
  const T *x = batch.x + b * N * D, *y = batch.y + b * N * D;
  const T *p = batch.p + b * K * D, *q = batch.q + b * L * D, *on = batch.on + b * 4 * step;
  T *const dead_p = frame.projections, *const dead_q = dead_p + K;
  using Of = Product<T>;
  for (int side = 0; side < 2; ++side) {
    const T* const of = on + 2 * side * step;
    T* const to = side ? batch.to_y : batch.to_x;
    if (to) write_products<T>(N, D, nullptr, to + b * N * D, Of{of, M, 1, p, K}, Of{of + step, M, 1, q, L});
  }
  if (!batch.to_p && !batch.to_q) return;
  find_dead(p, K, D, dead_p);
  find_dead(q, L, D, dead_q);
  overlap_gradient(batch, frame, b);
  const int S = frame.stride;
  const T* const overlap = frame.work;  // its rows belong to p, its columns to q
  if (batch.to_p)
    write_products(K, D, dead_p, batch.to_p + b * K * D, Of{on, 1, M, x, N}, Of{on + 2 * step, 1, M, y, N},
                   Of{overlap, S, 1, q, L});
  if (batch.to_q)
    write_products(L, D, dead_q, batch.to_q + b * L * D, Of{on + step, 1, M, x, N},
                   Of{on + 3 * step, 1, M, y, N}, Of{overlap, 1, S, p, K});
}

template <class T, class Room>
__global__ void __launch_bounds__(kGeodesicThreads, Room::kBlocks)
    geodesic_cosine_backward_kernel(CosineGradient<T> batch, Room room) {
  const int M = int(batch.M());
  const Frame<T> frame(room.get(), M);
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    for (int i = threadIdx.x; i < M * M; i += kGeodesicThreads) {
      frame.u[i / M * frame.stride + i % M] = batch.left[b * M * M + i];
      frame.v[i / M * frame.stride + i % M] = batch.right[b * M * M + i];
    }
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) frame.g[j] = batch.g[b * M + j];
    __syncthreads();
    frame.weigh();
    T* const mine = frame.projections + warp() * 2 * frame.stride;
    for (int64_t n = warp(); n < batch.N; n += kGeodesicWarps) turn_row(batch, frame, b, n, mine);
    __syncthreads();
    spread_gradients(batch, frame, b);
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
