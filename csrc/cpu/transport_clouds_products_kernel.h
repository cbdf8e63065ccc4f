// Sums over the pairs of two point clouds, tile by tile: no matrix of the size of all pairs is formed.
//
//   multiply      out[i, :]  = sum_j E_ij <left_i, right_j> v[j, :]
//   differentiate out[i, :]  = sum_j E_ij <left_i, right_j> dC_ij / dx_i
//
// with E_ij = exp(row_bias_i + column_bias_j - C_ij), see core/transport_clouds.h.
//
// A call computes one block of kBlock rows, against all columns, kBreadth at a time. Blocks are independent:
// results do not depend on the threads that share them out.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_clouds_tiles.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct BlockRoom {
  T *tile, *factors;  // [kBlock, kBreadth]
  T* sums;            // [kBlock, columns of the result]

  BlockRoom(Workspace<T>& from, int64_t columns) {
    using Tiles = CloudTiles<T>;
    tile = from.take(Tiles::kBlock * Tiles::kBreadth);
    factors = from.take(Tiles::kBlock * Tiles::kBreadth);
    sums = from.take(Tiles::kBlock * columns);
  }
};

template <class T>
int64_t cloud_memory(int64_t columns) {
  return room_for<BlockRoom, T>(columns);
}

template <class T>
class CloudBlock {
 public:
  using Tiles = CloudTiles<T>;

  CloudBlock(const CloudPass<T>& pass, int64_t block, const BlockRoom<T>& room)
      : p(pass),
        first(block * Tiles::kBlock),
        rows(std::min(Tiles::kBlock, pass.n - first)),
        tile(room.tile),
        factors(room.factors),
        sums(room.sums) {}

  void multiply(const PairFactor<T>& factor, const T* v, int64_t width_of_v, T* out) {
    T* here = out + first * width_of_v;
    std::fill(here, here + rows * width_of_v, T(0));
    each_tile([&](int64_t j, int64_t columns) {
      weigh(j, columns, factor, [](vec<T> weight, vec<T>) { return weight; });
      combine_with(v + j * width_of_v, width_of_v, columns, here);
    });
  }

  // The root's derivative is (x - y) / |x - y|, 0 where the points coincide.
  void differentiate_root(const PairFactor<T>& factor, const T* x, const T* y, T* out) {
    T *here = out + first * p.features, total[Tiles::kBlock] = {};
    std::fill(here, here + rows * p.features, T(0));
    each_tile([&](int64_t j, int64_t columns) {
      weigh(j, columns, factor,
            [](vec<T> weight, vec<T> score) { return score < T(0) ? weight / -score : vec<T>{}; });
      for (int64_t i = 0; i < rows; ++i) {
        vec<T> sum_here = {};
        for (int64_t c = 0; c < Tiles::padded_columns(columns); c += Tiles::width)
          sum_here += load(tile + i * Tiles::kBreadth + c);
        total[i] += sum<T>(sum_here);
      }
      combine_with(y + j * p.features, p.features, columns, here);
    });
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t d = 0; d < p.features; ++d) {
        T* to = here + i * p.features + d;
        *to = total[i] * x[(first + i) * p.features + d] - *to;
      }
  }

  // A power's derivative is p |x_d - y_d|^(p - 1) sign(x_d - y_d), 0 where the coordinates coincide.
  void differentiate_power(const PairFactor<T>& factor, const T* x, T* out) {
    constexpr T least = std::numeric_limits<T>::min();
    T* here = out + first * p.features;
    std::fill(here, here + rows * p.features, T(0));
    each_tile([&](int64_t j, int64_t columns) {
      weigh(j, columns, factor, [](vec<T> weight, vec<T>) { return weight; });
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < p.features; ++d) {
          vec<T> total = {};
          for (int64_t c = 0; c < Tiles::padded_columns(columns); c += Tiles::width) {
            int64_t panel = (j + c) / Tiles::kPanel, lane = (j + c) % Tiles::kPanel;
            vec<T> apart = x[(first + i) * p.features + d] -
                           load(p.columns + (panel * p.features + d) * Tiles::kPanel + lane);
            vec<T> size = apart < T(0) ? -apart : apart;
            vec<T> slope = power_slope(size);
            slope = size < least ? vec<T>{} : apart < T(0) ? -slope : slope;
            total += load(tile + i * Tiles::kBreadth + c) * slope;
          }
          here[i * p.features + d] += sum<T>(total);
        }
    });
  }

 private:
  // Calls work(first column, columns) for tile after tile, whose scores are then in `tile`.
  template <class Work>
  void each_tile(const Work& work) {
    for (int64_t j = 0; j < p.m; j += Tiles::kBreadth) {
      int64_t columns = std::min(Tiles::kBreadth, p.m - j);
      score_tile<T>(p, place(j, columns), tile);
      work(j, columns);
    }
  }

  TilePlace place(int64_t j, int64_t columns) const { return {first, rows, j, columns}; }

  // p size^(p - 1)
  vec<T> power_slope(vec<T> size) const {
    if (p.p == T(1)) return broadcast<T>(1);
    if (p.p == T(2)) return T(2) * size;
    return p.p * exp<T>((p.p - T(1)) * log<T>(size));
  }

  // Scores become weights, times their factors, by way of as(weight, score).
  template <class As>
  void weigh(int64_t j, int64_t columns, const PairFactor<T>& factor, const As& as) {
    if (factor.rank)
      score_tile<T, PairCost::dot>(factor.left, factor.right, factor.rank, T(1), place(j, columns), factors);
    for (int64_t i = 0; i < rows; ++i) {
      const T own = p.row_bias[first + i];
      for (int64_t c = 0; c < Tiles::padded_columns(columns); c += Tiles::width) {
        T* at = tile + i * Tiles::kBreadth + c;
        vec<T> score = load(at);
        vec<T> power = (score + load(p.column_bias + j + c)) + own;
        vec<T> weight =
            as(exp<T>(power > Tiles::kMostPower ? broadcast<T>(Tiles::kMostPower) : power), score);
        store(at, factor.rank ? weight * load(factors + i * Tiles::kBreadth + c) : weight);
      }
    }
  }

  // out += tile v
  void combine_with(const T* v, int64_t width_of_v, int64_t columns, T* out) {
    combine<T>(tile, Tiles::kBreadth, rows, v, width_of_v, columns, width_of_v, sums, width_of_v);
    for (int64_t k = 0; k < rows * width_of_v; ++k) out[k] += sums[k];
  }

  const CloudPass<T>& p;
  const int64_t first, rows;
  T *const tile, *const factors, *const sums;  // of BlockRoom
};

template <class T>
void multiply_cloud(const CloudPass<T>& pass, int64_t block, const PairFactor<T>& factor, const T* v,
                    int64_t columns, T* out, Workspace<T> memory) {
  CloudBlock<T>(pass, block, BlockRoom<T>(memory, columns)).multiply(factor, v, columns, out);
}

template <class T>
void differentiate_cloud(const CloudPass<T>& pass, int64_t block, const PairFactor<T>& factor, const T* x,
                         const T* y, T* out, Workspace<T> memory) {
  CloudBlock<T> work(pass, block, BlockRoom<T>(memory, pass.features));
  if (pass.cost == PairCost::root)
    work.differentiate_root(factor, x, y, out);
  else
    work.differentiate_power(factor, x, out);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
