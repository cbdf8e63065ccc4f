// Products of a panel of rows with a block's columns, a chunk of 64 bytes of each at a time, in shared
// memory.
//
//   sums_ij += sum_d row_id column_jd
//
// float32 and half precision on the tensor cores (cuda/tensor_cores.h says how exactly), float64 without.
// Products of 16 x 8 belong to warps: kStrips below each other, kTiles side by side. A line's stride of 80
// bytes keeps the fragments of a warp in different banks.

#pragma once

#include "cuda/tensor_cores.h"
#include "cuda/transport_layout.h"

namespace geokernels {

// How numbers lie in memory: as T, in which everything is computed, or in half precision.
enum class Stored : int { same, half, bfloat16 };

template <class T, class L>
struct Tile {
  static constexpr int kChunk = 64, kStride = kChunk + 16;  // bytes
  static constexpr int kDepth = kChunk / int(sizeof(T));    // numbers of T
  static constexpr int kWidth = L::kWidth;
  // warps side by side; where K is not in registers, so many that the products of a panel fit the shared
  // memory
  static constexpr int kAcross = L::kResident ? 2 : int(sizeof(T));
  static constexpr int kDown = L::kWarps / kAcross;
  static constexpr int kTiles = kWidth / 8 / kAcross;  // of 8 columns, a warp
  // where K is in registers one panel has all rows, so that columns are read once
  static constexpr int kPanel = L::kResident ? L::kHeight : kDown * 16;
  static constexpr int kStrips = (kPanel / 16 + kDown - 1) / kDown;  // of 16 rows, a warp; the last has fewer
  static constexpr int kLines = kPanel + kWidth;                     // rows, then columns
  static constexpr int kAtOnce = L::kThreads / kDepth;  // lines that the block's threads load at once
  static_assert(kPanel % 16 == 0 && kWidth % (8 * kAcross) == 0);
  using Sums = T[kStrips][kTiles][4];  // what a thread has of the products

  struct alignas(16) Line {
    T number[kStride / sizeof(T)];
  };
  Line line[kLines];

  // Where a thread starts to load numbers of T: this number of this line, and then kAtOnce lines further.
  __device__ static int own_feature() { return int(threadIdx.x) % kDepth; }
  __device__ static int first_line() { return int(threadIdx.x) / kDepth; }

  __device__ void multiply(float (&sums)[kStrips][kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
#pragma unroll 1
    for (int d = c; d < kDepth; d += 8) {
      Fragment<4> a[kStrips];
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const auto *up = line[own_row(s) + r].number + d, *down = line[own_row(s) + r + 8].number + d;
        a[s] = Fragment<4>({up[0], down[0], up[4], down[4]});
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto* right = line[kPanel + own_column() + t * 8 + r].number + d;
        const Fragment<2> b({right[0], right[4]});
#pragma unroll
        for (int s = 0; s < kStrips; ++s)
          if (has_strip(s)) add_product(sums[s][t], a[s], b);
      }
    }
  }

  // Of numbers in half precision, twice as many.
  template <Stored S>
  __device__ void multiply_as(float (&sums)[kStrips][kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
    uint32_t a[kStrips][2][4];
#pragma unroll
    for (int s = 0; s < kStrips; ++s)
#pragma unroll
      for (int e = 0; e < 8; ++e) a[s][e / 4][e % 4] = pair(own_row(s) + r + e % 2 * 8, e / 2 * 4 + c);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      uint32_t b[2][2];
#pragma unroll
      for (int e = 0; e < 4; ++e) b[e / 2][e % 2] = pair(kPanel + own_column() + t * 8 + r, e * 4 + c);
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        if (!has_strip(s)) continue;
        float sum[4] = {};
#pragma unroll
        for (int k = 0; k < 2; ++k)
          if constexpr (S == Stored::half)
            multiply_half(sum, a[s][k], b[k]);
          else
            multiply_bfloat16(sum, a[s][k], b[k]);
        add_to(sums[s][t], sum);
      }
    }
  }

  // The same sums in the same places, by multiply-adds.
  __device__ void multiply(double (&sums)[kStrips][kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
#pragma unroll 1
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int column = kPanel + own_column() + t * 8 + 2 * c;
        const double one = line[column].number[d], other = line[column + 1].number[d];
#pragma unroll
        for (int s = 0; s < kStrips; ++s) {
          if (!has_strip(s)) continue;
          const double up = line[own_row(s) + r].number[d], down = line[own_row(s) + r + 8].number[d];
          sums[s][t][0] += up * one, sums[s][t][1] += up * other;
          sums[s][t][2] += down * one, sums[s][t][3] += down * other;
        }
      }
  }

  // All products of the panel, which loops over rows and columns can read: what a thread has of them stays in
  // registers only where no loop goes over it.
  struct Matrix {
    T row[kPanel][kWidth + 8];
  };

  __device__ static void put(const Sums& sums, Matrix& matrix) {
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      if (!has_strip(s)) continue;
      T* const first = &matrix.row[own_row(s) + lane() / 4][own_column() + lane() % 4 * 2];
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int e = 0; e < 4; ++e) first[e / 2 * 8 * (kWidth + 8) + t * 8 + e % 2] = sums[s][t][e];
    }
  }

 private:
  // Two numbers in half precision.
  __device__ uint32_t pair(int of_line, int index) const {
    return reinterpret_cast<const uint32_t*>(line[of_line].number)[index];
  }

  // This warp's rows of the panel, and the first of its columns.
  __device__ static int own_row(int strip) { return (warp() / kAcross * kStrips + strip) * 16; }
  __device__ static bool has_strip(int strip) {
    return kDown * kStrips * 16 == kPanel || own_row(strip) < kPanel;
  }
  __device__ static int own_column() { return warp() % kAcross * kTiles * 8; }
};

// Tiles, and then the products of what was in them.
template <class T, class L, int Tiles>
union Workplace {
  Tile<T, L> tile[Tiles];
  typename Tile<T, L>::Matrix products;
};

}  // namespace geokernels
