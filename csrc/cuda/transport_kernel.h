// The kernel of small transport problems, CUDA: costs of points, the iteration, and the plan times columns,
// in one launch.
//
// cuda/transport_points_kernel.h, cuda/transport_iteration.h and cuda/transport_carry.h say how. The first
// and the last work where the iteration keeps its matrix.

#pragma once

#include "cuda/transport_carry.h"
#include "cuda/transport_iteration.h"
#include "cuda/transport_points_kernel.h"

namespace geokernels {

// Bytes of shared memory, with so many groups of K's rows in it.
template <class T, class L>
constexpr int64_t shared_bytes(int64_t near_groups, bool with_points, bool with_columns) {
  const int64_t held = near_groups * L::kEntries * int64_t(sizeof(T));
  const int64_t points = with_points ? int64_t(sizeof(typename PointCosts<T, L>::Memory)) : 0;
  const int64_t columns = with_columns ? int64_t(sizeof(typename Carry<T, L>::Memory)) : 0;
  const int64_t made = points > columns ? points : columns;
  return int64_t(sizeof(Shared<T, L>)) + (held > made ? held : made);
}

// What a launch keeps where.
struct Places {
  int near_groups;   // of K's rows in shared memory
  int64_t far_size;  // numbers of K in device memory, a block
  int64_t memory;  // bytes of shared memory, a block; more than there is room where a launch is not possible
};

// As much of K as fits is in shared memory, of which a block may have `room` bytes, the rest in device
// memory.
template <class T, class L>
constexpr Places places(int64_t rows, int64_t room, bool with_points, bool with_columns) {
  const int groups = L::groups(rows);
  const int64_t left = room - shared_bytes<T, L>(0, false, false);
  const int64_t fit = left > 0 ? left / (L::kEntries * int64_t(sizeof(T))) : 0;
  const int near_groups = int(fit < groups && !L::kResident ? fit : groups);
  return {near_groups, (groups - near_groups) * int64_t(L::kEntries),
          shared_bytes<T, L>(near_groups, with_points, with_columns)};
}

// Costs, iteration and columns of problem k.
template <class T, class L>
__device__ inline void solve_problem(const TransportBatch<T>& batch, const Store<T>& store,
                                     const PointBatch<T>& points, const Carried<T>& carried, unsigned k) {
  using Costs = PointCosts<T, L>;
  TransportProblem<T>& p = shared_memory<T, L>().problem;
  unsigned char* const room = block_memory() + sizeof(Shared<T, L>);
  if (threadIdx.x == 0) {
    const TransportProblem<T> own = batch.problem(k);
    p = own;
    shared_memory<T, L>().index = k;
  }
  __syncthreads();
  for (int i = int(p.n + threadIdx.x); i < batch.rows; i += L::kThreads) p.f[i] = 0;
  for (int j = int(p.m + threadIdx.x); j < batch.columns; j += L::kThreads) p.g[j] = 0;
  if (points.x) {
    auto& memory = *reinterpret_cast<typename Costs::Memory*>(room);
    Costs(batch, points, memory).write();
  }
  Sinkhorn<T, L>(store).run();
  if (carried.v) {
    auto& memory = *reinterpret_cast<typename Carry<T, L>::Memory*>(room);
    Carry<T, L>(batch, carried, memory).write();
  }
}

// A block a problem; or, where K needs device memory, which is there only for the blocks that run at once,
// problems in turn. Not everywhere, as a loop keeps in registers what all of its turns have in common.
template <class T, class L>
__global__ void __launch_bounds__(L::kThreads, L::template blocks<T>())
    sinkhorn_kernel(TransportBatch<T> batch, Store<T> store, PointBatch<T> points, Carried<T> carried) {
  if constexpr (L::kResident) {
    solve_problem<T, L>(batch, store, points, carried, blockIdx.x);
  } else {
    for (unsigned k = blockIdx.x; k < batch.problems; k += gridDim.x) {
      __syncthreads();  // the problem before is finished
      solve_problem<T, L>(batch, store, points, carried, k);
    }
  }
}

}  // namespace geokernels
