// Singular values and vectors of a small matrix by plane rotations of its rows (one-sided Jacobi), one block.
//
//   J A = diag(s) W      J orthogonal, W with orthonormal rows
//
// a   [rows, width]   rows `width` apart; on return diag(s) W, in no order
// j   [rows, rows]    the identity on entry; on return J
//
// Pairs of rows meet as in a tournament: in each of the rounds of a sweep every row has one partner, and a
// warp turns a pair at a time, lanes along the rows; a barrier ends a round. Which pairs are left
// alone and when sweeps end is core/rotation.h, as on the CPU. The order of operations depends on the sizes
// alone.

#pragma once

#include <cmath>

#include "cuda/device.h"
#include "cuda/formulas.h"

namespace geokernels {

// Row p or q of pair k in a round of a tournament of `players`, an even number.
__device__ inline int partner(int players, int round, int k, bool second) {
  const int others = players - 1;
  if (second) return (round + k) % others;
  return k == 0 ? others : (round + others - k) % others;
}

template <class T>
__device__ inline void rotate(T* up, T* down, int64_t count, const device::Turn<T, T>& by) {
  for (int64_t d = lane(); d < count; d += kWarp) {
    const T first = up[d], second = down[d];
    up[d] = by.up(first, second);
    down[d] = by.down(first, second);
  }
}

// squares[r] = |row r|^2; the largest of them, known to every thread.
template <class T>
__device__ inline T measure_rows(const T* a, int rows, int64_t width, T* squares) {
  const int warps = int(blockDim.x) / kWarp;
  for (int r = warp(); r < rows; r += warps) {
    T total = 0;
    for (int64_t d = lane(); d < width; d += kWarp) total += a[r * width + d] * a[r * width + d];
    total = warp_sum(total);
    if (lane() == 0) squares[r] = total;
  }
  __syncthreads();
  T most = 0;
  for (int r = 0; r < rows; ++r) most = squares[r] > most ? squares[r] : most;
  return most;
}

// squares: [rows], on return those of the rows; j: null where it is not wanted.
template <class T>
__device__ void orthogonalise_rows(T* a, T* j, int rows, int64_t width, T* squares) {
  const int warps = int(blockDim.x) / kWarp, players = (rows + 1) / 2 * 2;
  for (int sweep = 0; sweep < device::kSweeps; ++sweep) {
    const device::Invisible<T> invisible(measure_rows(a, rows, width, squares), rows);
    bool settled = true;
    for (int round = 0; round < players - 1; ++round) {
      for (int k = warp(); k < players / 2; k += warps) {
        const int p = partner(players, round, k, false), q = partner(players, round, k, true);
        if (p >= rows || q >= rows) continue;
        T *up = a + p * width, *down = a + q * width;
        T above = 0, below = 0, inner = 0;
        for (int64_t d = lane(); d < width; d += kWarp) {
          above += up[d] * up[d];
          below += down[d] * down[d];
          inner += up[d] * down[d];
        }
        const device::Turn<T, T> by(warp_sum(inner), warp_sum(above), warp_sum(below), invisible);
        settled &= !by.unsettled;
        if (by.sine == 0) continue;
        rotate(up, down, width, by);
        if (j) rotate(j + p * rows, j + q * rows, rows, by);
      }
      __syncthreads();
    }
    if (__syncthreads_and(settled)) break;
  }
  measure_rows(a, rows, width, squares);
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

template <class T>
__device__ inline void set_identity(T* j, int rows) {
  for (int i = threadIdx.x; i < rows * rows; i += blockDim.x) j[i] = i / rows == i % rows;
}

}  // namespace geokernels
