// Singular values and vectors of a small matrix by plane rotations of its rows (one-sided Jacobi), one block.
//
//   J A = diag(s) W      J orthogonal, W with orthonormal rows
//
// a   [rows, width]   rows `ld` apart; on return diag(s) W, in no order
// j   [rows, rows]    rows `ld` apart; the identity on entry; on return J
//
// Up to 16 x 16, one warp holds both matrices in its registers, half a row a lane, and pairs change lanes by
// shuffles; no barrier is met. Beyond, pairs of rows meet as in a tournament: in each of the rounds of a
// sweep every row has one partner, four lanes turn a pair, and a barrier ends a round. Which pairs are left
// alone and when sweeps end is core/rotation.h, as on the CPU. The order of operations depends on the sizes
// alone.

#pragma once

#include <cmath>

#include "cuda/device.h"
#include "cuda/formulas.h"

namespace geokernels {

constexpr int kInRegisters = 16;  // rows, and width
constexpr int kLanesOfPair = 4, kPairsOfWarp = kWarp / kLanesOfPair;

// How far rows of so many numbers should be apart: whole 16 bytes, for loads of four, and an odd number of
// fours, so that what the eight pairs of a warp read lies in different banks of shared memory.
__host__ __device__ constexpr int64_t spacing(int64_t numbers) { return 4 * ((numbers + 3) / 4 | 1); }

// squares[r] = |row r|^2; the largest of them, known to every thread.
template <class T>
__device__ inline T measure_rows(const T* a, int rows, int width, int ld, T* squares) {
  const int warps = int(blockDim.x) / kWarp;
  for (int r = warp(); r < rows; r += warps) {
    T total = 0;
    for (int d = lane(); d < width; d += kWarp) total += a[r * ld + d] * a[r * ld + d];
    total = warp_sum(total);
    if (lane() == 0) squares[r] = total;
  }
  __syncthreads();
  T most = 0;
  for (int r = 0; r < rows; ++r) most = squares[r] > most ? squares[r] : most;
  return most;
}

// One half of a row of each matrix, in the registers of one lane: lane 2 r + h has half h of row r.
template <class T>
struct HalfRows {
  static constexpr int kHalf = kInRegisters / 2;
  T a[kHalf], j[kHalf];

  __device__ void load(const T* from_a, const T* from_j, int rows, int width, int ld) {
    const int row = lane() / 2, first = lane() % 2 * kHalf;
#pragma unroll
    for (int e = 0; e < kHalf; ++e) {
      a[e] = row < rows && first + e < width ? from_a[row * ld + first + e] : T(0);
      j[e] = row < rows && first + e < rows ? from_j[row * ld + first + e] : T(0);
    }
  }

  __device__ void store(T* to_a, T* to_j, int rows, int width, int ld) const {
    const int row = lane() / 2, first = lane() % 2 * kHalf;
#pragma unroll
    for (int e = 0; e < kHalf; ++e) {
      if (row < rows && first + e < width) to_a[row * ld + first + e] = a[e];
      if (row < rows && first + e < rows) to_j[row * ld + first + e] = j[e];
    }
  }

  __device__ T square() const {
    T total = 0;
#pragma unroll
    for (int e = 0; e < kHalf; ++e) total += a[e] * a[e];
    return total + __shfl_xor_sync(kAllLanes, total, 1);
  }

  // Turns this row against row (own ^ apart); square: of this row, kept up to date. Whether it was settled.
  __device__ bool turn(int apart, T& square, const device::Invisible<T>& invisible) {
    const int lanes = 2 * apart, row = lane() / 2;
    const bool first = row < (row ^ apart);
    T other[kHalf], inner = 0;
#pragma unroll
    for (int e = 0; e < kHalf; ++e) {
      other[e] = __shfl_xor_sync(kAllLanes, a[e], lanes);
      inner += a[e] * other[e];
    }
    inner += __shfl_xor_sync(kAllLanes, inner, 1);
    const T its = __shfl_xor_sync(kAllLanes, square, lanes);
    const device::Turn<T, T> by(inner, first ? square : its, first ? its : square, invisible);
    // down() is up() with the opposite angle
    const T sign = first ? T(1) : T(-1), sine = sign * by.sine, half = sign * by.half;
    square -= sign * by.tangent * inner;
#pragma unroll
    for (int e = 0; e < kHalf; ++e) {
      const T of_j = __shfl_xor_sync(kAllLanes, j[e], lanes);
      a[e] -= sine * (other[e] + half * a[e]);
      j[e] -= sine * (of_j + half * j[e]);
    }
    return !by.unsettled;
  }
};

// Up to 16 rows and columns; one warp. Row r meets r ^ 1, r ^ 2, and so on.
template <class T>
__device__ void orthogonalise_in_registers(T* a, T* j, int rows, int width, int ld, T* squares) {
  HalfRows<T> own;
  own.load(a, j, rows, width, ld);
  int players = 1;
  while (players < rows) players *= 2;
  for (int sweep = 0; sweep < device::kSweeps; ++sweep) {
    T square = own.square();
    const device::Invisible<T> invisible(warp_max(square), rows);
    bool settled = true;
#pragma unroll 1
    for (int apart = 1; apart < players; ++apart) settled &= own.turn(apart, square, invisible);
    if (warp_max(settled ? 0 : 1) == 0) break;
  }
  const T square = own.square();
  if (lane() % 2 == 0 && lane() / 2 < rows) squares[lane() / 2] = square;
  own.store(a, j, rows, width, ld);
}

// Row p or q of pair k in a round of a tournament of `players`, an even number.
__device__ inline int partner(int players, int round, int k, bool second) {
  const int others = players - 1;
  if (second) return (round + k) % others;
  return k == 0 ? others : (round + others - k) % others;
}

template <class T>
__device__ inline void rotate(T* up, T* down, int count, const device::Turn<T, T>& by) {
  for (int d = lane() % kLanesOfPair; d < count; d += kLanesOfPair) {
    const T first = up[d], second = down[d];
    up[d] = by.up(first, second);
    down[d] = by.down(first, second);
  }
}

// Turns rows p and q by four lanes of a warp, of which all eight groups come here; a group without a pair has
// real = false. Whether the pair was settled.
template <class T>
__device__ bool turn_pair(T* a, T* j, int p, int q, bool real, int rows, int width, int ld,
                          const device::Invisible<T>& invisible) {
  T above = 0, below = 0, inner = 0;
  for (int d = lane() % kLanesOfPair; real && d < width; d += kLanesOfPair) {
    const T up = a[p * ld + d], down = a[q * ld + d];
    above += up * up;
    below += down * down;
    inner += up * down;
  }
  for (int lanes = kLanesOfPair / 2; lanes > 0; lanes /= 2) {
    above += __shfl_xor_sync(kAllLanes, above, lanes);
    below += __shfl_xor_sync(kAllLanes, below, lanes);
    inner += __shfl_xor_sync(kAllLanes, inner, lanes);
  }
  const device::Turn<T, T> by(inner, above, below, invisible);
  if (!real) return true;
  if (by.sine != 0) {
    rotate(a + p * ld, a + q * ld, width, by);
    rotate(j + p * ld, j + q * ld, rows, by);
  }
  return !by.unsettled;
}

template <class T>
__device__ void orthogonalise_in_memory(T* a, T* j, int rows, int width, int ld, T* squares) {
  const int at_once = int(blockDim.x) / kLanesOfPair, players = (rows + 1) / 2 * 2;
  for (int sweep = 0; sweep < device::kSweeps; ++sweep) {
    const device::Invisible<T> invisible(measure_rows(a, rows, width, ld, squares), rows);
    bool settled = true;
    for (int round = 0; round < players - 1; ++round) {
#pragma unroll 1
      for (int first = warp() * kPairsOfWarp; first < players / 2; first += at_once) {
        const int k = first + lane() / kLanesOfPair;
        const int p = partner(players, round, k, false), q = partner(players, round, k, true);
        const bool real = k < players / 2 && p < rows && q < rows;
        settled &= turn_pair(a, j, p, q, real, rows, width, ld, invisible);
      }
      __syncthreads();
    }
    if (__syncthreads_and(settled)) break;
  }
  measure_rows(a, rows, width, ld, squares);
}

// All threads of a block. squares: [rows], on return those of the rows.
template <class T>
__device__ void orthogonalise_rows(T* a, T* j, int rows, int width, int ld, T* squares) {
  if (rows > kInRegisters || width > kInRegisters)
    return orthogonalise_in_memory(a, j, rows, width, ld, squares);
  if (warp() == 0) orthogonalise_in_registers(a, j, rows, width, ld, squares);
  __syncthreads();
}

// order[i] = the row of i-th largest square, equal ones by their number; NaN counts as largest.
template <class T>
__device__ inline void sort_rows(const T* squares, int rows, int* order) {
  for (int r = threadIdx.x; r < rows; r += blockDim.x) {
    const T own = squares[r] == squares[r] ? squares[r] : infinity<T>();
    int before = 0;
    for (int i = 0; i < rows; ++i) {
      const T other = squares[i] == squares[i] ? squares[i] : infinity<T>();
      before += other > own || (other == own && i < r);
    }
    order[before] = r;
  }
  __syncthreads();
}

// The identity, and zeros up to the end of each row.
template <class T>
__device__ inline void set_identity(T* j, int rows, int ld) {
  for (int i = threadIdx.x; i < rows * ld; i += blockDim.x) j[i] = i / ld == i % ld;
}

}  // namespace geokernels
