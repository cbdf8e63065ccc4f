// Directions as combinations of orthonormal rows, with the sign that makes the largest component positive.
//
// A warp makes four directions of 128 features at a time, in its registers, and writes them; those that turn
// out to have the wrong sign are read again and written with the other.

#pragma once

#include <cmath>

#include "cuda/subspace_room.h"

namespace geokernels {

constexpr int kDirections = 4;  // that a warp makes at once

// sums[r] += sum_k times[r, k] row_k over this lane's share of a unit, for k < count. times(r, k): those of k
// and the next few, a pack; row(k): this lane's share of it.
template <class T, class Times, class Row>
__device__ void combine_rows(Times times, Row row, int count, Share<T> (&sums)[kDirections]) {
  constexpr int P = Pack<T>::kCount;
#pragma unroll 1
  for (int k = 0; k < count; k += P) {
    Pack<T> own[kDirections];
#pragma unroll
    for (int r = 0; r < kDirections; ++r) own[r] = times(r, k);
#pragma unroll
    for (int i = 0; i < P; ++i) {
      if (k + i >= count) break;
      const Share<T> its = row(k + i);
#pragma unroll
      for (int r = 0; r < kDirections; ++r) sums[r].add(own[r].at[i], its);
    }
  }
}

// The same of rows `apart`, of which `left` features are there, and which may not lie on boundaries of 16
// bytes. The two cases are loops of their own.
template <class T, class Times>
__device__ void combine_unit(Times times, const T* rows, int64_t apart, int64_t left, bool packs, int count,
                             Share<T> (&sums)[kDirections]) {
  const auto whole = [&](int k) { return Share<T>(rows + k * apart); };
  const auto part = [&](int k) {
    Share<T> found;
    found.load_some(rows + k * apart, left, false);
    return found;
  };
  if (packs && left >= kUnit)
    combine_rows(times, whole, count, sums);
  else
    combine_rows(times, part, count, sums);
}

// Where directions come from: rows of coefficients, and orthonormal rows, both for each unit of features.
template <class T>
struct DirectionsOfRoom {
  const BasisRoom<T>& room;
  int count, stride;
  __device__ const T* by(int i, int64_t) const { return room.j() + room.order()[i] * room.ld; }
  __device__ const T* rows(int64_t first) const { return room.q + first; }
};

template <class T>
struct DirectionsOfChunks {
  const T* turns;  // [R, chunks, padded]
  const T* q;      // [chunks, N, stride]
  int count;       // N
  int stride, chunks, padded;
  __device__ const T* by(int i, int64_t first) const {
    return turns + (int64_t(i) * chunks + int(first) / stride) * padded;
  }
  __device__ const T* rows(int64_t first) const {
    const int chunk = int(first) / stride, at = int(first) % stride;
    return q + int64_t(chunk) * count * stride + at;
  }
};

// Calls f(first of four directions of [begin, end), first of 128 of D features) for all of them, a warp at a
// time, the same warp each time.
template <class F>
__device__ void each_of_directions(int begin, int end, int64_t D, F f) {
  const int warps = int(blockDim.x) / kWarp, fours = (end - begin + kDirections - 1) / kDirections;
  const int tasks = fours * int(whole_units(D) / kUnit);
#pragma unroll 1
  for (int task = warp(); task < tasks; task += warps)
    f(begin + task % fours * kDirections, int64_t(task / fours) * kUnit);
}

template <class T>
struct DirectionWriter {
  int begin, end;  // directions, up to kSigns
  int64_t D;
  T* out;    // [R, D]
  T* spare;  // kSignRoom

  // Writes them; is_noise(i): those that are zero.
  template <class Source, class Noise>
  __device__ void write(const Source& from, Noise is_noise) const {
    T* const seen = spare + warp() * kSigns * 2;
    for (int i = lane(); i < kSigns * 2; i += kWarp) seen[i] = 0;
    __syncwarp();
    each_of_directions(begin, end, D, [&](int i, int64_t first) {
      const T *by[kDirections], *const q = from.rows(first);
#pragma unroll
      for (int r = 0; r < kDirections; ++r) by[r] = from.by(i + r < end ? i + r : i, first);
      Share<T> sums[kDirections] = {};
      combine_rows([&](int r, int k) { return pack(by[r] + k); },
                   [&](int k) { return Share<T>(q + k * from.stride); }, from.count, sums);
#pragma unroll
      for (int r = 0; r < kDirections; ++r) {
        if (i + r >= end) break;
        if (is_noise(i + r)) sums[r].clear();
        see(sums[r], seen + (i + r - begin) * 2);
        put(sums[r], i + r, first);
      }
    });
    __syncthreads();
    if (threadIdx.x < kSigns) signs()[threadIdx.x] = find_sign(threadIdx.x);
    __syncthreads();
    each_of_directions(begin, end, D, [&](int i, int64_t first) {
      for (int r = 0; r < kDirections && i + r < end; ++r)
        if (sign(i + r) < 0) turn_over(i + r, first);
    });
  }

  // What direction i was multiplied by, and its left vector must be.
  __device__ T sign(int i) const { return signs()[i - begin]; }

 private:
  __device__ T* signs() const { return spare + 2 * kMostSubspaceWarps * kSigns; }

  __device__ static void see(const Share<T>& part, T* extremes) {
    T high = 0, low = 0;
#pragma unroll
    for (T x : part.at) high = std::fmax(high, x), low = std::fmax(low, -x);
    high = warp_max(high), low = warp_max(low);
    if (lane() > 0) return;
    extremes[0] = std::fmax(extremes[0], high);
    extremes[1] = std::fmax(extremes[1], low);
  }

  __device__ T find_sign(int i) const {
    T high = 0, low = 0;
    for (int w = 0; w < int(blockDim.x) / kWarp; ++w) {
      high = std::fmax(high, spare[(w * kSigns + i) * 2]);
      low = std::fmax(low, spare[(w * kSigns + i) * 2 + 1]);
    }
    return low > high ? T(-1) : T(1);
  }

  __device__ void put(const Share<T>& part, int i, int64_t first) const {
    part.store_some(out + i * D + first, D - first, in_packs(out, D));
  }

  __device__ void turn_over(int i, int64_t first) const {
    Share<T> part;
    part.load_some(out + i * D + first, D - first, in_packs(out, D));
    part.scale(-1);
    put(part, i, first);
  }
};

}  // namespace geokernels
