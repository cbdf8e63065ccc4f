// How a block holds a small transport problem: its threads, and what lies in its shared memory.

#pragma once

#include "core/aim.h"
#include "core/transport_problem.h"
#include "cuda/device.h"
#include "cuda/formulas.h"
#include "cuda/transport_lanes.h"

namespace geokernels {

// A warp's lanes stand Across side by side, and each has Columns columns of Rows rows of K at a time.
template <int Across, int Columns, int Rows, int Warps, bool Resident>
struct Layout {
  static constexpr int kAcross = Across, kDown = kWarp / Across;
  static constexpr int kColumns = Columns, kRows = Rows, kWarps = Warps;
  static constexpr bool kResident = Resident;  // all rows at once, in registers
  static constexpr int kThreads = Warps * kWarp;
  static constexpr int kWidth = Columns * Across;
  static constexpr int kHeight = Rows * kDown * Warps;
  static constexpr int kPair = Columns % 2 == 0 ? 2 : 1;  // columns side by side, read at once
  // how lanes share out the sums of their rows, one each, and those of their columns
  using RowShares = Shares<Across, 1, Rows>;
  using ColumnShares = Shares<kDown, Across, Columns>;
  static_assert(RowShares::kMost == 1);
  static constexpr int kEntries = Rows * Columns * kThreads;  // of K, a group of rows
  static constexpr int kMostRows = Resident ? kHeight : int(kMostPoints);

  // Times that all warps take their rows, for n of them.
  __host__ __device__ static constexpr int groups(int64_t n) { return int((n + kHeight - 1) / kHeight); }

  // This thread's columns and rows.
  __device__ static int column(int c) { return (c / kPair * kAcross + lane() % kAcross) * kPair + c % kPair; }
  __device__ static int row(int group, int r) {
    return ((group * kWarps + warp()) * kDown + lane() / kAcross) * kRows + r;
  }

  // Blocks that a multiprocessor's 65,536 registers are shared out to. Where K is not in registers it fills
  // the shared memory, and one block is all that fits; as does one of 16 warps, where two of 8 would spill.
  template <class T>
  static constexpr int blocks() {
    constexpr int words = Rows * Columns * int(sizeof(T)) / 4;
    constexpr int registers = sizeof(T) == 4 && words <= 64 ? 128 : 255;
    return Resident ? 65536 / (registers * kThreads) : 1;
  }
};

// Calls use(layout) with the layout for clouds of at most so many points.
template <class T, class Use>
void with_layout(int64_t rows, int64_t columns, const Use& use) {
  const int64_t most = rows > columns ? rows : columns;
  if (most <= 64) return use(Layout<8, 8, 4, 4, true>());
  if (most <= 80) return use(Layout<8, 10, 5, 4, true>());
  if constexpr (sizeof(T) == 4) {  // of float64, so many would not fit the registers
    if (most <= 96) return use(Layout<8, 12, 6, 4, true>());
    if (most <= 128) return use(Layout<16, 8, 4, 16, true>());
  } else {
    if (most <= 128) return use(Layout<32, 4, 4, 8, false>());
  }
  use(Layout<32, 8, 4, 8, false>());
}

// What a block has in shared memory. A row belongs to one warp: except in absorb and for the results, no
// other warp reads it.
template <class T, class L>
struct alignas(16) Shared {
  TransportProblem<T> problem;
  int64_t index;  // of the problem in its batch
  double mass_a, mass_b;
  double spare[L::kWarps];
  device::Scaling<T> scaling;
  Aim<T> aim;
  T inverse_eps;
  bool balanced;  // whether marginals are hard constraints
  T by;           // the constant that f gains and g loses when K is next made anew
  T stranded;     // mass that no admissible pair can take
  T errors[L::kWarps];
  // with a penalty, the masses by the potentials; those of columns for this iteration and the next
  T asked_by_rows[L::kWarps], asked_by_columns[2][L::kWarps];
  T a[L::kMostRows], phi[L::kMostRows];
  T u[2][L::kMostRows], log_u[2][L::kMostRows];  // the current ones, and the next
  T b[L::kWidth], gamma[L::kWidth], v[L::kWidth], log_v[L::kWidth];
  T right[L::kWidth];  // v b
  T partial[L::kWarps][L::kWidth];

  // Shares a warp's sums, or largest, of its columns with the block; a barrier must come before they are
  // read.
  template <class Operation = Sum>
  __device__ void show_columns(T (&mine)[L::kColumns]) {
    using Shares = typename L::ColumnShares;
    Shares::template out<Operation>(mine);
    const Shares own;
#pragma unroll
    for (int c = 0; c < Shares::kMost; ++c)
      if (c < own.count) partial[warp()][L::column(own.first + c)] = mine[c];
  }

  // Of a number for each warp.
  __device__ static T total(const T (&each)[L::kWarps]) {
    T sum = 0;
#pragma unroll
    for (int w = 0; w < L::kWarps; ++w) sum += each[w];
    return sum;
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

// Where threads keep the entries of K that their registers do not hold, and from where registers take them.
template <class T>
struct Store {
  int near_groups;  // in shared memory behind Shared; the others in `far`
  T* far;           // device memory, far_size numbers a block; null where everything is near
  int64_t far_size;
};

// This thread's entries of K. A loop over rows makes them and puts them into memory one by one: made where
// they stay, in registers, they would need all of the code as often as there are entries.
template <class T, class L>
struct KernelMatrix {
  static constexpr int C = L::kColumns, R = L::kRows;

  T tile[R][C];  // all of them, or those of the current group of rows

  __device__ explicit KernelMatrix(const Store<T>& store)
      : near_groups(store.near_groups), far(store.far ? store.far + blockIdx.x * store.far_size : nullptr) {}

  __device__ void put(int group, int r, int c, T entry) {
    if (is_near(group))
      *near(group, r * C + c) = entry;
    else
      *further(group, r * C + c) = entry;
  }

  // So that no register need keep what will be made anew.
  __device__ void forget() {
    each([](T& entry, int) { entry = 0; });
  }

  // Brings the entries of a group into `tile`.
  __device__ void recall(int group) {
    if (is_near(group))
      each([&](T& entry, int e) { entry = *near(group, e); });
    else
      each([&](T& entry, int e) { entry = *further(group, e); });
  }

 private:
  template <class Copy>
  __device__ void each(const Copy& copy) {
#pragma unroll
    for (int e = 0; e < R * C; ++e) copy(tile[e / C][e % C], e);
  }
  __device__ bool is_near(int group) const { return L::kResident || group < near_groups; }
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
