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
  static constexpr int kDepth = Products::kDepth, kPanel = Products::kPanel;

  // Of problem k, whose f and g are written.
  __device__ Carry(const Carried<T>& carried, const TransportProblem<T>& p, int64_t k, int64_t rows,
                   int64_t columns, Products& tile)
      : v(carried.v + k * columns * carried.width),
        out(carried.out + k * rows * carried.width),
        width(int(carried.width)),
        rows(int(rows)),
        inverse(T(1 / p.eps)),
        p(p),
        tile(tile) {}

  __device__ void write() {
    for (int first = 0; first < rows; first += kPanel)
      for (int along = 0; along < width; along += L::kWidth) write_block(first, along);
  }

 private:
  __device__ void write_block(int first, int along) {
    typename Products::Sums sums = {};
    for (int j = 0; j < int(p.m); j += kDepth) {
      __syncthreads();  // f and g are written, the tile is free
      load(first, along, j);
      __syncthreads();
      tile.template multiply<false>(sums);
    }
    Products::each(sums, [&](int row, int e, T sum) {
      if (first + row < rows && along + e < width) out[int64_t(first + row) * width + along + e] = sum;
    });
  }

  // Rows are the plan's, a thread a point of y; columns those of v, a lane each.
  __device__ void load(int first, int along, int j) {
#pragma unroll 1
    for (int row = Products::first_line(); row < kPanel; row += Products::kAtOnce)
      tile.line[row][Products::own_feature()] = share(first + row, j + Products::own_feature());
#pragma unroll 1
    for (int d = warp(); d < kDepth; d += L::kWarps)
      for (int e = lane(); e < L::kWidth; e += kWarp)
        tile.line[kPanel + e][d] =
            j + d < int(p.m) && along + e < width ? v[int64_t(j + d) * width + along + e] : T(0);
  }

  // E_ij b_j; 0 where there is no such pair.
  __device__ T share(int i, int j) const {
    if (i >= int(p.n) || j >= int(p.m)) return 0;
    const T e = device::density_of<T>(p.f[i], p.g[j], p.cost[i * p.stride + j], inverse);
    const T weight = p.b ? p.b[j] : T(1) / T(p.m);
    return e * weight;
  }

  const T* const v;
  T* const out;
  const int width, rows;
  const T inverse;               // 1 / eps
  const TransportProblem<T>& p;  // in shared memory
  Products& tile;
};

}  // namespace geokernels
