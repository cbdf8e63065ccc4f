// How a block holds a small transport problem: its threads, and what lies in its shared memory.

#pragma once

#include "core/transport_problem.h"
#include "cuda/device.h"

namespace geokernels {

// How many columns a lane has, how many rows a warp takes at a time, and how many warps there are.
template <int Columns, int Rows, int Warps, bool Resident>
struct Layout {
  static constexpr int kColumns = Columns, kRows = Rows, kWarps = Warps;
  static constexpr bool kResident = Resident;  // all rows at once, in registers
  static constexpr int kThreads = Warps * kWarp;
  static constexpr int kWidth = Columns * kWarp;
  static constexpr int kHeight = Rows * Warps;
  static constexpr int kEntries = Rows * Columns * kThreads;  // of K, a group of rows
  static constexpr int kMostRows = Resident ? kHeight : int(kMostPoints);

  // Times that all warps take their rows, for n of them.
  __host__ __device__ static constexpr int groups(int64_t n) { return int((n + kHeight - 1) / kHeight); }

  // This thread's columns, and its warp's rows.
  __device__ static int column(int c) { return lane() + c * kWarp; }
  __device__ static int row(int group, int r) { return (group * kWarps + warp()) * kRows + r; }
};

// Calls use(layout) with the layout for clouds of at most so many points.
template <class T, class Use>
void with_layout(int64_t rows, int64_t columns, const Use& use) {
  const int64_t most = rows > columns ? rows : columns;
  if (most <= 64) return use(Layout<2, 8, 8, true>());
  if constexpr (sizeof(T) == 4)  // of float64, so many would not fit the registers
    if (most <= 96) return use(Layout<3, 8, 12, true>());
  if (most <= 128) return use(Layout<4, 4, 8, false>());
  use(Layout<8, 4, 8, false>());
}

// What a block has in shared memory. A row belongs to one warp: except in absorb and for the results, no
// other warp reads it.
template <class T, class L>
struct Shared {
  TransportProblem<T> problem;
  double mass_a, mass_b;
  double spare[L::kWarps];
  T errors[L::kWarps];
  T asked_by_rows[L::kWarps], asked_by_columns[L::kWarps];  // with a penalty, the masses by the potentials
  T a[L::kMostRows], phi[L::kMostRows];
  T u[2][L::kMostRows], log_u[2][L::kMostRows];  // the current ones, and the next
  T b[L::kWidth], gamma[L::kWidth], v[L::kWidth], log_v[L::kWidth];
  T right[L::kWidth];  // v b
  T partial[L::kWarps][L::kWidth];

  // Shares a thread's numbers of its columns with the block; a barrier must come before they are read.
  __device__ void show_columns(const T (&mine)[L::kColumns]) {
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) partial[warp()][L::column(c)] = mine[c];
  }

  // The sum of what the warps have shared of column j.
  __device__ T column_sum(int j) const {
    T sum = 0;
    for (int w = 0; w < L::kWarps; ++w) sum += partial[w][j];
    return sum;
  }
};

template <class T, class L>
__device__ inline Shared<T, L>& shared_memory() {
  return *reinterpret_cast<Shared<T, L>*>(block_memory());
}

// Where threads keep the entries of K that their registers do not hold.
template <class T>
struct Store {
  int near_groups;  // in shared memory behind Shared; the others in `far`
  T* far;           // device memory, far_size numbers a block; null where everything is near
  int64_t far_size;
};

// This thread's entries of K.
template <class T, class L>
struct KernelMatrix {
  static constexpr int C = L::kColumns, R = L::kRows;

  T tile[R][C];  // all of them, or those of the current group of rows

  __device__ explicit KernelMatrix(const Store<T>& store)
      : near_groups(store.near_groups), far(store.far ? store.far + blockIdx.x * store.far_size : nullptr) {}

  // Brings the entries of a group into `tile`, and puts them back.
  __device__ void recall(int group) {
    if constexpr (!L::kResident) {
      if (group < near_groups)
        each([&](T& entry, int e) { entry = *near(group, e); });
      else
        each([&](T& entry, int e) { entry = *further(group, e); });
    }
  }
  __device__ void keep(int group) {
    if constexpr (!L::kResident) {
      if (group < near_groups)
        each([&](T& entry, int e) { *near(group, e) = entry; });
      else
        each([&](T& entry, int e) { *further(group, e) = entry; });
    }
  }

 private:
  template <class Copy>
  __device__ void each(const Copy& copy) {
#pragma unroll
    for (int e = 0; e < R * C; ++e) copy(tile[e / C][e % C], e);
  }
  __device__ static T* near(int group, int e) {
    T* const held = reinterpret_cast<T*>(block_memory() + sizeof(Shared<T, L>));
    return held + (group * R * C + e) * L::kThreads + threadIdx.x;
  }
  __device__ T* further(int group, int e) const {
    return far + ((group - near_groups) * R * C + e) * L::kThreads + threadIdx.x;
  }

  const int near_groups;
  T* const far;
};

}  // namespace geokernels
