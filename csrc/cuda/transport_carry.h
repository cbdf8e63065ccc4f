// The plan of a small problem times given columns, by the block that has just solved it.
//
//   out_ie = sum_j E_ij b_j v_je,      E_ij = exp((f_i + g_j - C_ij) / eps),   P_ij = a_i b_j E_ij
//
// v    [M, width]   columns; one of ones gives the sums by which a barycentric map divides
// out  [N, width]   written in full, zero beyond a problem's own n
//
// E is computed from the potentials as returned (core/transport_density.h). It is computed again for every
// kWidth columns of v: one exponential for so many products on the tensor cores (cuda/transport_tile.h).

#pragma once

#include "cuda/formulas.h"
#include "cuda/transport_tile.h"

namespace geokernels {

// Columns of all problems of a batch; v is null where there are none.
template <class T>
struct Carried {
  const T* v;  // [problems, M, width]
  T* out;      // [problems, N, width]
  int64_t width;
};

template <class T, class L>
class Carry {
 public:
  using Products = Tile<T, L>;
  using Memory = Workplace<T, L, 1>;
  static constexpr int kDepth = Products::kDepth, kPanel = Products::kPanel;

  // Of the problem in shared memory, whose f and g are written.
  __device__ Carry(const TransportBatch<T>& batch, const Carried<T>& carried, Memory& work)
      : batch(batch), carried(carried), work(work) {}

  __device__ void write() {
    for (int first = 0; first < rows(); first += kPanel)
      for (int along = 0; along < width(); along += L::kWidth) write_block(first, along);
  }

 private:
  __device__ void write_block(int first, int along) {
    typename Products::Sums sums = {};
    for (int j = 0; j < int(problem().m); j += kDepth) {
      __syncthreads();  // f and g are written, the tile is free
      load(first, along, j);
      __syncthreads();
      work.tile[0].multiply(sums);
    }
    __syncthreads();
    Products::put(sums, work.products);
    __syncthreads();
    const int here = rows() - first < kPanel ? rows() - first : kPanel;
    const int wide = width() - along < L::kWidth ? width() - along : L::kWidth;
    T* const out = carried.out + index() * batch.rows * carried.width;
#pragma unroll 1
    for (int row = warp(); row < here; row += L::kWarps)
#pragma unroll 1
      for (int e = lane(); e < wide; e += kWarp)
        out[int64_t(first + row) * width() + along + e] = work.products.row[row][e];
  }

  // Rows are the plan's, a thread a point of y; columns those of v, a lane each.
  __device__ void load(int first, int along, int j) {
#pragma unroll 1
    for (int row = Products::first_line(); row < kPanel; row += Products::kAtOnce)
      work.tile[0].line[row].number[Products::own_feature()] =
          share(first + row, j + Products::own_feature());
    const T* const v = carried.v + index() * batch.columns * carried.width;
#pragma unroll 1
    for (int d = warp(); d < kDepth; d += L::kWarps)
      for (int e = lane(); e < L::kWidth; e += kWarp)
        work.tile[0].line[kPanel + e].number[d] =
            j + d < int(problem().m) && along + e < width() ? v[int64_t(j + d) * width() + along + e] : T(0);
  }

  // E_ij b_j; 0 where there is no such pair.
  __device__ static T share(int i, int j) {
    const TransportProblem<T>& p = problem();
    if (i >= int(p.n) || j >= int(p.m)) return 0;
    const T e =
        device::density_of<T>(p.f[i], p.g[j], p.cost[i * p.stride + j], shared_memory<T, L>().inverse_eps);
    const T weight = p.b ? p.b[j] : T(1) / T(p.m);
    return e * weight;
  }

  __device__ static const TransportProblem<T>& problem() { return shared_memory<T, L>().problem; }
  __device__ static int64_t index() { return shared_memory<T, L>().index; }
  __device__ int rows() const { return int(batch.rows); }
  __device__ int width() const { return int(carried.width); }

  const TransportBatch<T>& batch;
  const Carried<T>& carried;
  Memory& work;
};

}  // namespace geokernels
