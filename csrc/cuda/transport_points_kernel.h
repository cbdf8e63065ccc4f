// Costs between the points of two small clouds, made by the block that iterates on them afterwards.
//
//   dot      C_ij = -<x_i, y_j>
//   angle    C_ij = 1 - <x_i, y_j>                       of directions
//   square   C_ij = |x_i|^2 + |y_j|^2 - 2 <x_i, y_j>     about a common centre
//
// x, y   [N, D], [M, D]   float32, float16 or bfloat16, computed in float32; or float64
// costs  [N, M]           +inf beyond a problem's own n and m
//
// Points are copied a chunk of features at a time, chunks ahead of the one that is multiplied
// (cuda/copies.h), and multiplied as they lie in memory (cuda/transport_tile.h).
//
// Distances do not depend on the centre, but the Gram form loses digits where the origin is far away: its
// error is some 2^-21 of the squares it sums. They are those of the points as they are while they sum to at
// most kMostSquares times the costs, which loses no more than log2(kMostSquares) bits against points moved to
// their centre; where squares are larger the costs are made again, of moved points. So are those of points
// that do not lie on multiples of 16 bytes, a number at a time.

#pragma once

#include <type_traits>

#include "cuda/copies.h"
#include "cuda/transport_tile.h"

namespace geokernels {

// The clouds of a batch; x is null where costs are given.
template <class T>
struct PointBatch {
  const void *x, *y;  // [problems, N, features], [problems, M, features]
  T* costs;           // [problems, N, M]
  int64_t features;
  PointCost kind;
  Stored stored;
};

// A number of memory; and the sum of squares of the numbers in a piece of it.
template <class T, Stored S>
struct Reading {
  using Number = std::conditional_t<S == Stored::same, T, uint16_t>;

  __device__ static T number(Number from) {
    if constexpr (S == Stored::half) return half_to_float(from);
    if constexpr (S == Stored::same) return from;
    const uint32_t wide = uint32_t(from) << 16;
    float x;
    memcpy(&x, &wide, sizeof(x));
    return x;
  }

  __device__ static T squares(const void* piece) {
    struct alignas(kPiece) Piece {
      Number of[kPiece / sizeof(Number)];
    };
    const Piece read = *static_cast<const Piece*>(piece);
    T sum = 0;
#pragma unroll
    for (const Number from : read.of) {
      const T x = number(from);
      sum += x * x;
    }
    return sum;
  }
};

template <class T, class L>
class PointCosts {
 public:
  using Products = Tile<T, L>;
  static constexpr int kDepth = Products::kDepth, kPanel = Products::kPanel, kLines = Products::kLines;
  static constexpr int kStages = L::kResident ? 3 : 2;           // chunks that are held
  static constexpr int kPieces = Products::kChunk / kPiece;      // of a line, a thread each
  static constexpr int kAtOnce = L::kThreads / kPieces;          // lines
  static constexpr int kOwn = (kLines + kAtOnce - 1) / kAtOnce;  // lines of a thread
  static constexpr double kMostSquares = 4;

  struct Memory {
    Workplace<T, L, kStages> work;
    T centre[Products::kAtOnce][kDepth];
    T squares[kLines];
    T parts[kOwn][L::kThreads];  // of the squares, a thread's pieces of its lines
  };

  // Of the problem in shared memory. What is the same throughout is read where it is needed: the sums of
  // products leave few registers.
  __device__ PointCosts(const TransportBatch<T>& batch, const PointBatch<T>& points, Memory& memory)
      : batch(batch), points(points), memory(memory) {}

  __device__ void write() {
    if (lies_in_pieces()) {
      const Totals all = write_panels<false>();
      if (points.kind != PointCost::square || is_near(all)) return;
    }
    write_panels<true>();
  }

 private:
  template <Stored S>
  using Number = typename Reading<T, S>::Number;

  // What all pairs of a thread sum to.
  struct Totals {
    T squares = 0, costs = 0;
  };

  // Calls use(as) where as.value says how points are stored.
  template <class Use>
  __device__ auto as_stored(const Use& use) const {
    if constexpr (sizeof(T) == 4) {
      if (points.stored == Stored::half) return use(std::integral_constant<Stored, Stored::half>());
      if (points.stored == Stored::bfloat16) return use(std::integral_constant<Stored, Stored::bfloat16>());
    }
    return use(std::integral_constant<Stored, Stored::same>());
  }

  __device__ int line_bytes() const {
    return int(points.features) * (points.stored == Stored::same ? int(sizeof(T)) : 2);
  }

  __device__ bool lies_in_pieces() const {
    return (uintptr_t(points.x) | uintptr_t(points.y) | unsigned(line_bytes())) % kPiece == 0;
  }

  // Whether the origin is; false with NaN.
  __device__ bool is_near(const Totals& all) const {
    double* const spare = shared_memory<T, L>().spare;
    const double squares = block_sum(double(all.squares), spare);
    return squares <= kMostSquares * block_sum(double(all.costs), spare);
  }

  // Whether a line has a point: the panel's rows of x, then those of y.
  __device__ bool is_point(int first, int line) const {
    return line < kPanel ? first + line < n() : line - kPanel < m();
  }

  template <bool Moved>
  __device__ Totals write_panels() {
    Totals all;
    if constexpr (L::kResident)
      write_panel<Moved>(0, all);
    else
      for (int first = 0; first < rows(); first += kPanel) write_panel<Moved>(first, all);
    return all;
  }

  template <bool Moved>
  __device__ void write_panel(int first, Totals& all) {
    typename Products::Sums sums = {};
#pragma unroll
    for (int k = 0; k < kOwn; ++k) memory.parts[k][threadIdx.x] = 0;
    if constexpr (Moved)
      multiply_moved(first, sums);
    else
      as_stored([&](auto as) { multiply_chunks<as.value>(first, sums); });
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const T sum = over_lanes<kPieces, Sum>(memory.parts[k][threadIdx.x]);
      if (own_line(k) < kLines && own_piece() == 0) memory.squares[own_line(k)] = sum;
    }
    Products::put(sums, memory.work.products);
    __syncthreads();
    const int here = rows() - first < kPanel ? rows() - first : kPanel;
#pragma unroll 1
    for (int row = warp(); row < here; row += L::kWarps)
#pragma unroll 1
      for (int j = lane(); j < columns(); j += kWarp) write_cost(first, row, j, all);
    __syncthreads();
  }

  __device__ void write_cost(int first, int row, int j, Totals& all) {
    const bool square = points.kind == PointCost::square, counts = first + row < n() && j < m();
    const T both = square ? memory.squares[row] + memory.squares[kPanel + j]
                          : T(points.kind == PointCost::angle ? 1 : 0);
    const T cost = both - (square ? 2 : 1) * memory.work.products.row[row][j];
    if (counts) all.squares += both, all.costs += cost;
    T* const costs = points.costs + shared_memory<T, L>().index * batch.rows * batch.columns;
    costs[(first + row) * columns() + j] = counts ? cost : infinity<T>();
  }

  // A thread has the same piece of a line's chunks in every kAtOnce-th line.
  __device__ static int own_piece() { return int(threadIdx.x) % kPieces; }
  __device__ static int own_line(int k) { return k * kAtOnce + int(threadIdx.x) / kPieces; }
  template <class Line>
  __device__ static auto* piece_of(Line& line) {
    return reinterpret_cast<std::conditional_t<std::is_const_v<Line>, const unsigned char, unsigned char>*>(
               line.number) +
           own_piece() * kPiece;
  }

  template <Stored S>
  __device__ void multiply_chunks(int first, typename Products::Sums& sums) {
    for (int ahead = 0; ahead < kStages - 1; ++ahead)
      copy(first, ahead * Products::kChunk, memory.work.tile[ahead]);
    int stage = 0;  // where the chunk is
    for (int byte = 0; byte < line_bytes(); byte += Products::kChunk) {
      wait_for_copies<kStages - 2>();
      __syncthreads();  // the chunk is there, and the one before it has been read
      copy(first, byte + (kStages - 1) * Products::kChunk,
           memory.work.tile[stage == 0 ? kStages - 1 : stage - 1]);
      const Products& tile = memory.work.tile[stage];
      if (points.kind == PointCost::square) add_squares<S>(tile);
      if constexpr (S == Stored::same)
        tile.multiply(sums);
      else
        tile.template multiply_as<S>(sums);
      stage = stage + 1 < kStages ? stage + 1 : 0;
    }
    wait_for_copies<0>();
    __syncthreads();
  }

  // Starts to bring the chunk from a byte of all lines on into a tile, zeros where there is none.
  __device__ void copy(int first, int byte, Products& tile) {
    const int bytes = line_bytes(), at = byte + own_piece() * kPiece;
    // one address a cloud, from which others are not far
    const auto* const of_x = bytes_of(points.x, x()) + int64_t(first + own_line(0)) * bytes + at;
    const auto* const of_y = bytes_of(points.y, y()) + int64_t(own_line(0) - kPanel) * bytes + at;
#pragma unroll 1  // unrolled, it would keep registers that the products need
    for (int k = 0; k < kOwn; ++k) {
      const int line = own_line(k);
      if (kLines % kAtOnce > 0 && line >= kLines) continue;
      const bool there = at < bytes && is_point(first, line);
      copy_piece(piece_of(tile.line[line]), (line < kPanel ? of_x : of_y) + k * kAtOnce * bytes, there);
    }
    close_copies();
  }

  __device__ const unsigned char* bytes_of(const void* cloud, int64_t number) const {
    return static_cast<const unsigned char*>(cloud) +
           number * (points.stored == Stored::same ? sizeof(T) : 2);
  }

  template <Stored S>
  __device__ void add_squares(const Products& tile) const {
#pragma unroll 1
    for (int k = 0; k < kOwn; ++k)
      if (kLines % kAtOnce == 0 || own_line(k) < kLines)
        memory.parts[k][threadIdx.x] += Reading<T, S>::squares(piece_of(tile.line[own_line(k)]));
  }

  // Of points that are moved, and are numbers of T.
  __device__ void multiply_moved(int first, typename Products::Sums& sums) {
    for (int64_t d = 0; d < points.features; d += kDepth) {
      as_stored([&](auto as) { load<as.value>(first, d); });
      if (points.kind == PointCost::square) centre(first, d);
      __syncthreads();
      if (points.kind == PointCost::square) add_squares<Stored::same>(memory.work.tile[0]);
      memory.work.tile[0].multiply(sums);
      __syncthreads();  // the tile is free again
    }
  }

  // Brings features from d on into the tile, zeros where there are none, many lines before any is stored.
  template <Stored S>
  __device__ void load(int first, int64_t d) {
    constexpr int kInFlight = 8;
    const int own = Products::own_feature();
    const auto* const of_x =
        static_cast<const Number<S>*>(points.x) + x() + int64_t(first) * points.features + d + own;
    const auto* const of_y =
        static_cast<const Number<S>*>(points.y) + y() - int64_t(kPanel) * points.features + d + own;
    const bool inside = d + own < points.features;
#pragma unroll 1
    for (int start = Products::first_line(); start < kLines; start += kInFlight * Products::kAtOnce) {
      Number<S> read[kInFlight];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        const int line = start + k * Products::kAtOnce;
        const auto* const from = (line < kPanel ? of_x : of_y) + line * points.features;
        read[k] = inside && line < kLines && is_point(first, line) ? *from : Number<S>(0);
      }
#pragma unroll
      for (int k = 0; k < kInFlight; ++k)
        if (const int line = start + k * Products::kAtOnce; line < kLines)
          memory.work.tile[0].line[line].number[own] = Reading<T, S>::number(read[k]);
    }
  }

  // Moves the tile to its centre, half the sum of both clouds' means; a thread sees what it has loaded
  // itself.
  __device__ void centre(int first, int64_t d) {
    const int in_panel = n() - first < kPanel ? n() - first : kPanel;
    const T of_x = in_panel > 0 ? T(0.5) / in_panel : T(0), of_y = T(0.5) / m();
    const int own = Products::own_feature(), start = Products::first_line();
    Products& tile = memory.work.tile[0];
    T mean = 0;
#pragma unroll 4
    for (int line = start; line < kLines; line += Products::kAtOnce)
      mean += tile.line[line].number[own] * (line < kPanel ? of_x : of_y);
    memory.centre[start][own] = mean;
    __syncthreads();
    mean = 0;
#pragma unroll 4
    for (int k = 0; k < Products::kAtOnce; ++k) mean += memory.centre[k][own];
    if (d + own >= points.features) return;
#pragma unroll 4
    for (int line = start; line < kLines; line += Products::kAtOnce)
      if (is_point(first, line)) tile.line[line].number[own] -= mean;
  }

  __device__ static const TransportProblem<T>& problem() { return shared_memory<T, L>().problem; }
  __device__ static int n() { return int(problem().n); }
  __device__ static int m() { return int(problem().m); }
  __device__ int rows() const { return int(batch.rows); }
  __device__ int columns() const { return int(batch.columns); }
  // Where the problem's points begin.
  __device__ int64_t x() const { return shared_memory<T, L>().index * batch.rows * points.features; }
  __device__ int64_t y() const { return shared_memory<T, L>().index * batch.columns * points.features; }

  const TransportBatch<T>& batch;
  const PointBatch<T>& points;
  Memory& memory;
};

}  // namespace geokernels
