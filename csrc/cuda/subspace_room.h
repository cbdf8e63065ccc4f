// A block's rows of features on the chip: how they come there, and what is kept of them.

#pragma once

#include <cmath>

#include "cuda/jacobi.h"
#include "cuda/orthonormal.h"
#include "cuda/room.h"

namespace geokernels {

// A block's threads; few where a warp that turns 16 rows by itself should have neighbours.
constexpr int subspace_threads(int64_t rows) { return rows <= kInRegisters ? 128 : 256; }
constexpr int kMostSubspaceThreads = 256, kMostSubspaceWarps = kMostSubspaceThreads / kWarp;
constexpr int kSigns = 16;  // directions whose signs a block finds at once
constexpr int kSignRoom = (2 * kMostSubspaceWarps + 1) * kSigns;

// What a block has of one problem, or one chunk. Places are computed where they are needed, which takes fewer
// registers than to keep them.
template <class T>
struct BasisRoom {
  T* q;  // [N, stride]   the rows, and those made of them
  int N, R, stride, ld;

  // memory: as many numbers as room() says.
  __device__ BasisRoom(T* memory, int N, int R, int64_t D)
      : q(memory), N(N), R(R), stride(int(whole_units(D))), ld(int(spacing(N))) {}

  // [R, ld]   their coefficients, R = min(N, D); then at least kSignRoom spare
  __device__ T* a() const { return q + N * stride; }
  // [warps]
  __device__ T* spare() const { return a() + coefficients(R, ld); }
  // [2]
  __device__ int* counts() const { return reinterpret_cast<int*>(spare() + kMostSubspaceWarps); }
  // [R, ld]   the turns
  __device__ T* j() const { return spare() + kMostSubspaceWarps + 4; }
  // [R]
  __device__ T* squares() const { return j() + R * ld; }
  // [R]
  __device__ int* order() const { return reinterpret_cast<int*>(squares() + R); }

  // Numbers of T; for `whole` problems the turns are in it too.
  static int64_t room(int64_t N, int64_t D, bool whole) {
    const int64_t R = N < D ? N : D, ld = spacing(N);
    const int64_t rows = N * whole_units(D) + coefficients(R, ld) + kMostSubspaceWarps + 4;
    return whole_packs(whole ? rows + R * ld + 2 * R : rows);
  }

 private:
  __host__ __device__ static int64_t coefficients(int64_t R, int64_t ld) {
    return R * ld > kSignRoom ? R * ld : kSignRoom;
  }
};

template <class T>
__device__ inline T size_of(T x) {
  return std::fabs(x);
}

template <class T>
__device__ inline T size_of(const Pack<T>& x) {
  T most = 0;
#pragma unroll
  for (T each : x.at) most = std::fmax(most, std::fabs(each));
  return most;
}

// One row of D features to another place, padded with zeros up to `stride`, by a warp; the largest size that
// this lane saw. Several loads are under way before the first store, which might concern what they load.
template <class T, class Piece>
__device__ T copy_row(const T* from, int64_t D, T* to, int stride) {
  constexpr int kAtOnce = 4, kNumbers = sizeof(Piece) / sizeof(T);
  T most = 0;
  for (int first = lane() * kNumbers; first < stride; first += kAtOnce * kWarp * kNumbers) {
    Piece held[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int d = first + i * kWarp * kNumbers;
      if (d < D) held[i] = *reinterpret_cast<const Piece*>(from + d);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int d = first + i * kWarp * kNumbers;
      if (d < stride) *reinterpret_cast<Piece*>(to + d) = held[i];
      most = std::fmax(most, size_of(held[i]));
    }
  }
  return most;
}

// x, rows of D features `apart`, to the room; the power of two below which all of it is.
template <class T>
__device__ int load_rows(const T* x, int N, int64_t D, int64_t apart, const BasisRoom<T>& room) {
  const int warps = int(blockDim.x) / kWarp;
  const bool packs = in_packs(x, apart);
  T most = 0;
  for (int n = warp(); n < N; n += warps) {
    const T* const from = x + n * apart;
    T* const to = room.q + n * room.stride;
    most = std::fmax(most, packs ? copy_row<T, Pack<T>>(from, D, to, room.stride)
                                 : copy_row<T, T>(from, D, to, room.stride));
  }
  most = warp_max(most);
  if (lane() == 0) room.spare()[warp()] = most;
  __syncthreads();
  for (int w = 0; w < warps; ++w) most = std::fmax(most, room.spare()[w]);
  int exponent = 0;
  std::frexp(most, &exponent);
  const int lowest = std::numeric_limits<T>::min_exponent;
  return exponent > lowest ? exponent : lowest;
}

// x to orthonormal rows and coefficients in the room, both of x times 2^-exponent; returns their number.
template <class T>
__device__ int decompose_rows(const T* x, int N, int R, int64_t D, int64_t apart, const BasisRoom<T>& room,
                              int& exponent) {
  for (int i = threadIdx.x; i < R * room.ld; i += blockDim.x) room.a()[i] = 0;
  exponent = load_rows(x, N, D, apart, room);
  __syncthreads();
  const Orthonormal<T> into{room.q, room.stride, room.a(), room.ld, R};
  const int count = orthonormalise(into, N, std::ldexp(T(1), -exponent), room.counts());
  __syncthreads();
  return count;
}

}  // namespace geokernels
