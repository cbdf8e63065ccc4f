// Costs between the points of two small clouds, made by the block that iterates on them afterwards.
//
//   dot      C_ij = -<x_i, y_j>
//   angle    C_ij = 1 - <x_i, y_j>                       of directions
//   square   C_ij = |x_i|^2 + |y_j|^2 - 2 <x_i, y_j>     about a common centre
//
// x, y   [N, D], [M, D]   float32 on the tensor cores (cuda/tensor_cores.h says how exactly), float64 without
// costs  [N, M]           +inf beyond a problem's own n and m
//
// Distances do not see the centre, but the Gram form loses its digits to a distant origin: points are moved
// to it before they are rounded, and their squares are those of the moved ones. Features come kDepth at a
// time, a lane each, rows by turns of the warps; products of 16 x 8 x 8 then belong to warps, several side by
// side.

#pragma once

#include "core/transport_problem.h"
#include "cuda/tensor_cores.h"

namespace geokernels {

// The clouds of a batch; x is null where costs are given.
template <class T>
struct PointBatch {
  const T *x, *y;  // [problems, N, features], [problems, M, features]
  T* costs;        // [problems, N, M]
  int64_t features;
  PointCost kind;
};

template <class T, class L>
class PointCosts {
 public:
  static constexpr int kDepth = kWarp;
  static constexpr int kAcross = L::kResident ? 2 : 4;                   // warps side by side
  static constexpr int kTiles = L::kWidth / 8 / kAcross;                 // of 8 columns, a warp
  static constexpr int kPanel = L::kWarps / kAcross * 16;                // rows at a time
  static constexpr int kLines = kPanel + L::kWidth;                      // of x and of y
  static constexpr int kOwn = (kLines + L::kThreads - 1) / L::kThreads;  // lines whose square a thread sums

  struct Memory {
    T tile[kLines][kDepth + 4];  // a line's stride keeps the fragments of a warp in different banks
    T centre[L::kWarps][kDepth];
    T squares[kLines];
  };

  __device__ PointCosts(const PointBatch<T>& points, const TransportProblem<T>& p, int64_t k, int64_t rows,
                        int64_t columns, Memory& memory)
      : x(points.x + k * rows * points.features),
        y(points.y + k * columns * points.features),
        costs(points.costs + k * rows * columns),
        features(points.features),
        kind(points.kind),
        n(int(p.n)),
        m(int(p.m)),
        rows(int(rows)),
        columns(int(columns)),
        memory(memory) {}

  __device__ void write() {
    for (int first = 0; first < rows; first += kPanel) write_panel(first);
  }

 private:
  // A line's point, or null: the panel's rows of x, then those of y.
  __device__ const T* point(int first, int line) const {
    if (line < kPanel) return first + line < n ? x + (first + line) * features : nullptr;
    return line - kPanel < m ? y + (line - kPanel) * features : nullptr;
  }

  __device__ void write_panel(int first) {
    T sums[kTiles][4] = {}, squares[kOwn] = {};
    for (int64_t d = 0; d < features; d += kDepth) {
      load(first, d);
      if (kind == PointCost::square) centre(first, d);
      __syncthreads();
      add_squares(squares);
      multiply_tile(sums);
      __syncthreads();  // the tile is free again
    }
#pragma unroll
    for (int k = 0; k < kOwn; ++k)
      if (int line = k * L::kThreads + threadIdx.x; line < kLines) memory.squares[line] = squares[k];
    __syncthreads();
    store(first, sums);
    __syncthreads();
  }

  // Brings features from d on into the tile, zeros where there are none.
  __device__ void load(int first, int64_t d) {
    const bool inside = d + lane() < features;
#pragma unroll 4
    for (int line = warp(); line < kLines; line += L::kWarps) {
      const T* from = point(first, line);
      memory.tile[line][lane()] = from && inside ? from[d + lane()] : T(0);
    }
  }

  // Moves the tile to its centre, half the sum of both clouds' means; a thread sees what it has loaded
  // itself.
  __device__ void centre(int first, int64_t d) {
    const int in_panel = n - first < kPanel ? n - first : kPanel;
    const T of_x = in_panel > 0 ? T(0.5) / in_panel : T(0), of_y = T(0.5) / m;
    T mean = 0;
#pragma unroll 4
    for (int line = warp(); line < kLines; line += L::kWarps)
      mean += memory.tile[line][lane()] * (line < kPanel ? of_x : of_y);
    memory.centre[warp()][lane()] = mean;
    __syncthreads();
    mean = 0;
#pragma unroll 4
    for (int w = 0; w < L::kWarps; ++w) mean += memory.centre[w][lane()];
    if (d + lane() >= features) return;
#pragma unroll 4
    for (int line = warp(); line < kLines; line += L::kWarps)
      if (point(first, line)) memory.tile[line][lane()] -= mean;
  }

  __device__ void add_squares(T (&squares)[kOwn]) const {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int line = k * L::kThreads + threadIdx.x;
      if (line >= kLines) continue;
      // neighbours begin at different features, and so read different banks
#pragma unroll 4
      for (int d = 0; d < kDepth; ++d) {
        const T value = memory.tile[line][(d + lane() / 8) % kDepth];
        squares[k] += value * value;
      }
    }
  }

  // This warp's rows of the panel, and the first of its columns.
  __device__ static int own_row() { return warp() / kAcross * 16; }
  __device__ static int own_column() { return warp() % kAcross * kTiles * 8; }

  __device__ void multiply_tile(float (&sums)[kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
#pragma unroll 1
    for (int d = 0; d < kDepth; d += 8) {
      const auto *up = memory.tile[own_row() + r] + d + c, *down = memory.tile[own_row() + r + 8] + d + c;
      const Split<4> a({up[0], down[0], up[4], down[4]});
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto* right = memory.tile[kPanel + own_column() + t * 8 + r] + d + c;
        multiply(sums[t], a, Split<2>({right[0], right[4]}));
      }
    }
  }

  // The same sums in the same places, by multiply-adds.
  __device__ void multiply_tile(double (&sums)[kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
    const auto *up = memory.tile[own_row() + r], *down = memory.tile[own_row() + r + 8];
#pragma unroll 1
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto* right = memory.tile[kPanel + own_column() + t * 8 + 2 * c] + d;
        const double one = right[0], other = right[kDepth + 4];
        sums[t][0] += up[d] * one, sums[t][1] += up[d] * other;
        sums[t][2] += down[d] * one, sums[t][3] += down[d] * other;
      }
  }

  __device__ void store(int first, const T (&sums)[kTiles][4]) const {
    const int r = own_row() + lane() / 4, c = own_column() + lane() % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = r + e / 2 * 8, i = first + row, j = c + t * 8 + e % 2;
        if (i >= rows || j >= columns) continue;
        costs[int64_t(i) * columns + j] = i < n && j < m ? cost(row, j, sums[t][e]) : infinity<T>();
      }
  }

  __device__ T cost(int row, int j, T product) const {
    if (kind == PointCost::square) return (memory.squares[row] + memory.squares[kPanel + j]) - 2 * product;
    return (kind == PointCost::angle ? T(1) : T(0)) - product;
  }

  const T *x, *y;
  T* const costs;
  const int64_t features;
  const PointCost kind;
  const int n, m, rows, columns;
  Memory& memory;
};

}  // namespace geokernels
