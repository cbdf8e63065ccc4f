// Gradient of the leading directions of feature rows and of their values, CUDA.
//
//   grad_x = sum_i u_i (grad_i / s_i + sum_k along[i, k] b_k)^T
//
// derived in geokernels/reference/subspace.py. Shapes are those of cuda/subspace_kernel.h, of whose results
// it is made.
//
// Features are cut into parts, a block each. `along` needs seen[k, i] = <b_k, grad_i> over all features:
// where there are several parts, a first launch leaves each one's share of them, and every block of the
// second adds them up in the same order. Sums and products are in T; the order of every sum depends on the
// sizes alone.
//
// Limits: N <= 128.

#pragma once

#include <cmath>

#include "cuda/subspace_directions.h"

namespace geokernels {

template <class T>
struct BasisGradient {
  const T *grad_directions, *grad_values;  // the latter may be null, for zero
  const T *left, *directions, *values;
  T* grad_x;
  T* shares;  // [B, parts, R + 1, R]   of `seen`, and of the sizes of directions; spare if there is one part
  int64_t problems, N, D, rank;

  __host__ __device__ int64_t kept() const { return N < D ? N : D; }
  // Features of a part: few where one block would take long.
  __host__ __device__ int64_t width() const { return N <= kInRegisters ? 1024 : 256; }
  __host__ __device__ int64_t parts() const { return D > 0 ? (D + width() - 1) / width() : 1; }
  __host__ __device__ int64_t share() const { return (kept() + 1) * kept(); }
  int64_t blocks() const { return problems * parts(); }
  int64_t of_shares() const { return parts() > 1 ? blocks() * share() : 0; }
  int64_t room() const { return whole_packs(kept() * (spacing(kept()) + kUnit + 2)); }
};

// A problem's part of the features.
template <class T>
struct BasisPart {
  int R;
  int64_t b, D, begin, end;
  const T *grad, *directions;  // [R, D]
  bool packs;

  __device__ BasisPart(const BasisGradient<T>& batch, int64_t at) : R(int(batch.kept())), D(batch.D) {
    b = at / batch.parts();
    begin = at % batch.parts() * batch.width();
    end = begin + batch.width() < D ? begin + batch.width() : D;
    grad = batch.grad_directions + b * R * D;
    directions = batch.directions + b * R * D;
    packs = in_packs(grad, D) && in_packs(directions, D);
  }

  __device__ Share<T> share(const T* rows, int r, int64_t first) const {
    Share<T> found;
    found.load_some(rows + r * D + first, end - first, packs);
    return found;
  }
};

// seen[k ld + i] = <b_k, grad_i> over a part, and sizes[k] = sum |b_k|; a warp takes four by four at a time.
template <class T>
__device__ void see_gradients(const BasisPart<T>& part, T* seen, int ld, T* sizes) {
  const int warps = int(blockDim.x) / kWarp, R = part.R, fours = (R + kKnown - 1) / kKnown;
  for (int task = warp(); task < fours * fours; task += warps) {
    const int k = task / fours * kKnown, i = task % fours * kKnown;
    T sums[kKnown][kKnown] = {}, size[kKnown] = {};
#pragma unroll 1
    for (int64_t first = part.begin; first < part.end; first += kUnit) {
      Share<T> directions[kKnown];
#pragma unroll
      for (int r = 0; r < kKnown; ++r) {
        directions[r] = part.share(part.directions, k + r < R ? k + r : k, first);
#pragma unroll
        for (T x : directions[r].at) size[r] += std::fabs(x);
      }
#pragma unroll
      for (int c = 0; c < kKnown; ++c) {
        const Share<T> grad = part.share(part.grad, i + c < R ? i + c : i, first);
#pragma unroll
        for (int r = 0; r < kKnown; ++r) sums[r][c] += directions[r].product(grad);
      }
    }
    const int c = lane();
#pragma unroll
    for (int r = 0; r < kKnown; ++r) {
      const T sum = sum_each<kKnown>(sums[r]);
      if (c < kKnown && k + r < R && i + c < R) seen[(k + r) * ld + i + c] = sum;
    }
    const T whole = sum_each<kKnown>(size);
    if (i == 0 && lane() < kKnown && k + lane() < R) sizes[k + lane()] = whole;
  }
}

template <class T>
__global__ void __launch_bounds__(kMostSubspaceThreads, Near<T>::kBlocks)
    subspace_shares_kernel(BasisGradient<T> batch, Near<T>) {
  const int R = int(batch.kept());
  for (int64_t at = blockIdx.x; at < batch.problems * batch.parts(); at += gridDim.x) {
    T* const seen = batch.shares + at * batch.share();
    see_gradients(BasisPart<T>(batch, at), seen, R, seen + R * R);
  }
}

template <class T>
__device__ void add_shares(const BasisGradient<T>& batch, int64_t b, T* seen, int ld, T* sizes) {
  const int R = int(batch.kept());
  const T* const shares = batch.shares + b * batch.parts() * batch.share();
  for (int at = threadIdx.x; at < batch.share(); at += blockDim.x) {
    T total = 0;
    for (int64_t part = 0; part < batch.parts(); ++part) total += shares[part * batch.share() + at];
    (at < R * R ? seen[at / R * ld + at % R] : sizes[at - R * R]) = total;
  }
}

// `seen` to `along`, in its place, and sizes to 1 / s_i, 0 for what is not kept.
template <class T>
__device__ void turn_gradients(const BasisGradient<T>& batch, int64_t b, T* seen, int ld, T* sizes) {
  const int R = int(batch.kept()), rank = int(batch.rank);
  const T closed = 8 * std::numeric_limits<T>::epsilon();
  const T* const s = batch.values + b * R;
  for (int i = threadIdx.x; i < R; i += blockDim.x) sizes[i] = i < rank && sizes[i] > 0 ? 1 / s[i] : T(0);
  for (int i = threadIdx.x; i < R * ld; i += blockDim.x)
    if (i % ld >= R) seen[i] = 0;
  __syncthreads();
  for (int at = threadIdx.x; at < R * R; at += blockDim.x) {
    const int i = at / R, k = at % R;  // i is kept where either is
    if (i > k) continue;
    T* const upper = seen + i * ld + k;
    T* const lower = seen + k * ld + i;
    const T above = *upper, below = *lower, gap = (s[i] - s[k]) * (s[i] + s[k]);
    const bool turns = sizes[i] > 0 && k >= rank && gap > closed * s[i] * s[i];
    const T turn = turns ? below / gap : T(0);
    const T own = i == k && batch.grad_values ? batch.grad_values[b * R + i] : T(0);
    *upper = s[i] * turn - below * sizes[i] + own;
    if (i < k) *lower = s[k] * turn - above * sizes[k];
  }
}

// grad_x of 128 features from `first` on; tile: [R, kUnit] spare.
template <class T>
__device__ void write_gradient(const BasisGradient<T>& batch, const BasisPart<T>& part, const T* along,
                               int ld, const T* inverse, int64_t first, T* tile) {
  const int warps = int(blockDim.x) / kWarp, R = part.R, N = int(batch.N);
  const T* const left = batch.left + part.b * R * N;
#pragma unroll 1
  for (int i = warp() * kDirections; i < R; i += warps * kDirections) {
    Share<T> sums[kDirections] = {};
    combine_unit([&](int r, int k) { return pack(along + (i + r < R ? i + r : i) * ld + k); },
                 part.directions + first, part.D, part.end - first, part.packs, R, sums);
#pragma unroll
    for (int r = 0; r < kDirections; ++r) {
      if (i + r >= R) break;
      sums[r].add(inverse[i + r], part.share(part.grad, i + r, first));
      sums[r].store(tile + (i + r) * kUnit);
    }
  }
  __syncthreads();
  T* const out = batch.grad_x + part.b * N * part.D + first;
#pragma unroll 1
  for (int n = warp() * kDirections; n < N; n += warps * kDirections) {
    Share<T> sums[kDirections] = {};
    const auto times = [&](int r, int k) {
      Pack<T> found;
#pragma unroll
      for (int i = 0; i < Pack<T>::kCount; ++i)
        found.at[i] = left[(k + i < R ? k + i : k) * N + (n + r < N ? n + r : n)];
      return found;
    };
    combine_rows(times, [&](int k) { return Share<T>(tile + k * kUnit); }, R, sums);
#pragma unroll
    for (int r = 0; r < kDirections; ++r)
      if (n + r < N) sums[r].store_some(out + (n + r) * part.D, part.end - first, in_packs(out, part.D));
  }
  __syncthreads();  // the tile is free again
}

template <class T, class Room>
__global__ void __launch_bounds__(kMostSubspaceThreads, Room::kBlocks)
    subspace_basis_backward_kernel(BasisGradient<T> batch, Room memory) {
  const int R = int(batch.kept()), ld = int(spacing(R));
  T* const seen = memory.get();       // [R, ld]
  T* const tile = seen + R * ld;      // [R, kUnit]
  T* const sizes = tile + R * kUnit;  // [R]
  for (int64_t at = blockIdx.x; at < batch.problems * batch.parts(); at += gridDim.x) {
    const BasisPart<T> part(batch, at);
    if (batch.parts() > 1)
      add_shares(batch, part.b, seen, ld, sizes);
    else
      see_gradients(part, seen, ld, sizes);
    __syncthreads();
    turn_gradients(batch, part.b, seen, ld, sizes);
    __syncthreads();
    for (int64_t first = part.begin; first < part.end; first += kUnit)
      write_gradient(batch, part, seen, ld, sizes, first, tile);
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
