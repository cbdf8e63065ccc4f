// Products of a panel of rows with a block's columns, kDepth numbers of each at a time, in shared memory.
//
//   sums_ij += sum_d row_id column_jd      d < kDepth
//
// float32 on the tensor cores (cuda/tensor_cores.h says how exactly), float64 without. Products of 16 x 8 x 8
// belong to warps, several of them side by side.

#pragma once

#include "cuda/tensor_cores.h"
#include "cuda/transport_layout.h"

namespace geokernels {

template <class T, class L>
struct Tile {
  // as many numbers as fit the 99 KiB of the smallest shared memory, beside what the iteration keeps
  static constexpr int kDepth = sizeof(T) == 4 ? 32 : 16;
  static constexpr int kAcross = L::kResident ? 2 : 4;     // warps side by side
  static constexpr int kTiles = L::kWidth / 8 / kAcross;   // of 8 columns, a warp
  static constexpr int kPanel = L::kWarps / kAcross * 16;  // rows at a time
  static constexpr int kLines = kPanel + L::kWidth;        // rows, then columns
  static constexpr int kAtOnce = L::kThreads / kDepth;     // lines that the block's threads load at once
  using Sums = T[kTiles][4];                               // what a thread has of the products

  T line[kLines][kDepth + 4];  // a line's stride keeps the fragments of a warp in different banks

  // Where a thread starts to load: this number of this line, and then kAtOnce lines further.
  __device__ static int own_feature() { return int(threadIdx.x) % kDepth; }
  __device__ static int first_line() { return int(threadIdx.x) / kDepth; }

  // Exact: all numbers are ones of tf32.
  template <bool Exact>
  __device__ void multiply(float (&sums)[kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
#pragma unroll 1
    for (int d = 0; d < kDepth; d += 8) {
      const auto *up = line[own_row() + r] + d + c, *down = line[own_row() + r + 8] + d + c;
      const Fragment<4, Exact> a({up[0], down[0], up[4], down[4]});
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto* right = line[kPanel + own_column() + t * 8 + r] + d + c;
        add_product(sums[t], a, Fragment<2, Exact>({right[0], right[4]}));
      }
    }
  }

  // The same sums in the same places, by multiply-adds.
  template <bool>
  __device__ void multiply(double (&sums)[kTiles][4]) const {
    const int r = lane() / 4, c = lane() % 4;
    const auto *up = line[own_row() + r], *down = line[own_row() + r + 8];
#pragma unroll 1
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto* right = line[kPanel + own_column() + t * 8 + 2 * c] + d;
        const double one = right[0], other = right[kDepth + 4];
        sums[t][0] += up[d] * one, sums[t][1] += up[d] * other;
        sums[t][2] += down[d] * one, sums[t][3] += down[d] * other;
      }
  }

  // Calls take(row, column, sum) for every product that this thread has.
  template <class Take>
  __device__ static void each(const Sums& sums, const Take& take) {
    const int r = own_row() + lane() / 4, c = own_column() + lane() % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int e = 0; e < 4; ++e) take(r + e / 2 * 8, c + t * 8 + e % 2, sums[t][e]);
  }

 private:
  // This warp's rows of the panel, and the first of its columns.
  __device__ static int own_row() { return warp() / kAcross * 16; }
  __device__ static int own_column() { return warp() % kAcross * kTiles * 8; }
};

}  // namespace geokernels
