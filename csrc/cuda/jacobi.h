// Singular values and vectors of a small matrix by plane rotations of its rows (one-sided Jacobi), one block.
//
//   J A = diag(s) W      J orthogonal, W with orthonormal rows
//
// a   [rows, width]   rows `width` apart; on return diag(s) W, in no order
// j   [rows, rows]    the identity on entry; on return J
//
// Pairs of rows meet as in a tournament: in each of the rounds of a sweep every row has one partner, and a
// warp turns a pair at a time, lanes along the rows; a barrier ends a round. What is left alone, when it
// ends, and why are as in core/jacobi.h, whose formulas these are. The order of operations depends on the
// sizes alone.

#pragma once

#include <cmath>

#include "cuda/device.h"

namespace geokernels {

constexpr int kJacobiSweeps = 40;  // five to ten suffice; the bound is for NaN

// The turn that makes two rows orthogonal: its sine, and the tangent of its half.
template <class T>
struct Rotation {
  T sine = 0, half = 0;
  bool settled = true;  // nothing visible is left behind

  // above, below: squared lengths; inner: the inner product. Squares up to `floor` are rounding; turns and
  // cosines up to the root of `small` are invisible afterwards.
  __device__ Rotation(T above, T below, T inner, T floor, T small) {
    const T scale = 1 / (above + below);
    const T apart = (below - above) * scale, twice = 2 * inner * scale;
    const T product = 4 * (above * scale) * (below * scale), square = twice * twice;
    const T eps = std::numeric_limits<T>::epsilon();
    if (above <= floor || below <= floor || square <= eps * eps * product) return;
    const T size = apart < 0 ? -apart : apart;
    const T tangent = (apart < 0 ? -twice : twice) / (size + std::sqrt(apart * apart + square));
    settled = !(tangent * tangent > small || square > small * product);
    const T secant = std::sqrt(1 + tangent * tangent);
    sine = tangent / secant;
    half = tangent / (1 + secant);
  }
};

// Row p or q of pair k in a round of a tournament of `players`, an even number.
__device__ inline int partner(int players, int round, int k, bool second) {
  const int others = players - 1;
  if (second) return (round + k) % others;
  return k == 0 ? others : (round + others - k) % others;
}

template <class T>
__device__ inline void rotate(T* up, T* down, int64_t count, const Rotation<T>& by) {
  for (int64_t d = lane(); d < count; d += kWarp) {
    const T first = up[d], second = down[d];
    // as corrections to the rows, small turns leave small rounding errors, and lengths do not drift
    up[d] = first - by.sine * (second + by.half * first);
    down[d] = second + by.sine * (first - by.half * second);
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

// squares: [rows], on return those of the rows.
template <class T>
__device__ void orthogonalise_rows(T* a, T* j, int rows, int64_t width, T* squares) {
  const int warps = int(blockDim.x) / kWarp, players = (rows + 1) / 2 * 2;
  const T eps = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min();
  const T small = eps / (4 * T(rows));
  for (int sweep = 0; sweep < kJacobiSweeps; ++sweep) {
    const T rounding = eps * eps / 4 * measure_rows(a, rows, width, squares);
    const T floor = rounding > least ? rounding : least;
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
        const Rotation<T> by(warp_sum(above), warp_sum(below), warp_sum(inner), floor, small);
        settled &= by.settled;
        if (by.sine == 0) continue;
        rotate(up, down, width, by);
        rotate(j + p * rows, j + q * rows, rows, by);
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
