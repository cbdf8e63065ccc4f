// Costs between the points of two small clouds, made by the block that iterates on them afterwards.
//
//   dot      C_ij = -<x_i, y_j>
//   angle    C_ij = 1 - <x_i, y_j>                       of directions
//   square   C_ij = |x_i|^2 + |y_j|^2 - 2 <x_i, y_j>     about a common centre
//
// x, y   [N, D], [M, D]   float32, float16 or bfloat16, computed in float32; or float64
// costs  [N, M]           +inf beyond a problem's own n and m
//
// Distances do not depend on the centre, but the Gram form loses digits where the origin is far away: points
// are moved to the centre before they are rounded, and their squares are those of the moved ones. Features
// come kDepth at a time, a thread each (cuda/transport_tile.h).

#pragma once

#include "cuda/transport_tile.h"

namespace geokernels {

// The type of the points in memory: T, in which everything is computed, or half precision.
enum class Stored : int { same, half, bfloat16 };

// The clouds of a batch; x is null where costs are given.
template <class T>
struct PointBatch {
  const void *x, *y;  // [problems, N, features], [problems, M, features]
  T* costs;           // [problems, N, M]
  int64_t features;
  PointCost kind;
  Stored stored;
};

template <class T>
__device__ inline T read_number(const void* from, int64_t at, Stored stored) {
  if constexpr (sizeof(T) == 4)
    if (stored != Stored::same) {
      const uint16_t bits = static_cast<const uint16_t*>(from)[at];
      if (stored == Stored::half) return half_to_float(bits);
      const uint32_t wide = uint32_t(bits) << 16;
      float x;
      memcpy(&x, &wide, sizeof(x));
      return x;
    }
  return static_cast<const T*>(from)[at];
}

template <class T, class L>
class PointCosts {
 public:
  using Products = Tile<T, L>;
  static constexpr int kDepth = Products::kDepth, kPanel = Products::kPanel, kLines = Products::kLines;
  static constexpr int kOwn = (kLines + L::kThreads - 1) / L::kThreads;  // lines whose square a thread sums

  struct Memory {
    Products tile;
    T centre[Products::kAtOnce][kDepth];
    T squares[kLines];
  };

  // Of problem k.
  __device__ PointCosts(const PointBatch<T>& points, const TransportProblem<T>& p, int64_t k, int64_t rows,
                        int64_t columns, Memory& memory)
      : points(points),
        x(k * rows * points.features),
        y(k * columns * points.features),
        costs(points.costs + k * rows * columns),
        n(int(p.n)),
        m(int(p.m)),
        rows(int(rows)),
        columns(int(columns)),
        memory(memory) {}

  __device__ void write() {
    // with a centre, points of half precision are not exact any more
    if (points.stored != Stored::same && points.kind != PointCost::square)
      write_panels<true>();
    else
      write_panels<false>();
  }

 private:
  template <bool Exact>
  __device__ void write_panels() {
    for (int first = 0; first < rows; first += kPanel) write_panel<Exact>(first);
  }

  // Whether a line has a point: the panel's rows of x, then those of y.
  __device__ bool is_point(int first, int line) const {
    return line < kPanel ? first + line < n : line - kPanel < m;
  }

  __device__ T feature(int first, int line, int64_t d) const {
    if (line < kPanel)
      return read_number<T>(points.x, x + (first + line) * points.features + d, points.stored);
    return read_number<T>(points.y, y + (line - kPanel) * points.features + d, points.stored);
  }

  template <bool Exact>
  __device__ void write_panel(int first) {
    typename Products::Sums sums = {};
    T squares[kOwn] = {};
    for (int64_t d = 0; d < points.features; d += kDepth) {
      load(first, d);
      if (points.kind == PointCost::square) centre(first, d);
      __syncthreads();
      add_squares(squares);
      memory.tile.template multiply<Exact>(sums);
      __syncthreads();  // the tile is free again
    }
#pragma unroll
    for (int k = 0; k < kOwn; ++k)
      if (int line = k * L::kThreads + threadIdx.x; line < kLines) memory.squares[line] = squares[k];
    __syncthreads();
    Products::each(sums, [&](int row, int j, T product) {
      const int i = first + row;
      if (i >= rows || j >= columns) return;
      costs[int64_t(i) * columns + j] = i < n && j < m ? cost(row, j, product) : infinity<T>();
    });
    __syncthreads();
  }

  // Brings features from d on into the tile, zeros where there are none.
  __device__ void load(int first, int64_t d) {
    const int own = Products::own_feature();
    const bool inside = d + own < points.features;
#pragma unroll 4
    for (int line = Products::first_line(); line < kLines; line += Products::kAtOnce)
      memory.tile.line[line][own] = inside && is_point(first, line) ? feature(first, line, d + own) : T(0);
  }

  // Moves the tile to its centre, half the sum of both clouds' means; a thread sees what it has loaded
  // itself.
  __device__ void centre(int first, int64_t d) {
    const int in_panel = n - first < kPanel ? n - first : kPanel;
    const T of_x = in_panel > 0 ? T(0.5) / in_panel : T(0), of_y = T(0.5) / m;
    const int own = Products::own_feature(), start = Products::first_line();
    T mean = 0;
#pragma unroll 4
    for (int line = start; line < kLines; line += Products::kAtOnce)
      mean += memory.tile.line[line][own] * (line < kPanel ? of_x : of_y);
    memory.centre[start][own] = mean;
    __syncthreads();
    mean = 0;
#pragma unroll 4
    for (int k = 0; k < Products::kAtOnce; ++k) mean += memory.centre[k][own];
    if (d + own >= points.features) return;
#pragma unroll 4
    for (int line = start; line < kLines; line += Products::kAtOnce)
      if (is_point(first, line)) memory.tile.line[line][own] -= mean;
  }

  __device__ void add_squares(T (&squares)[kOwn]) const {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int line = k * L::kThreads + threadIdx.x;
      if (line >= kLines) continue;
      // neighbouring threads start at different features, and so read different banks
#pragma unroll 4
      for (int d = 0; d < kDepth; ++d) {
        const T value = memory.tile.line[line][(d + lane() / 8) % kDepth];
        squares[k] += value * value;
      }
    }
  }

  __device__ T cost(int row, int j, T product) const {
    if (points.kind == PointCost::square)
      return (memory.squares[row] + memory.squares[kPanel + j]) - 2 * product;
    return (points.kind == PointCost::angle ? T(1) : T(0)) - product;
  }

  const PointBatch<T>& points;
  const int64_t x, y;  // where the problem's points begin
  T* const costs;
  const int n, m, rows, columns;
  Memory& memory;
};

}  // namespace geokernels
