// Passes over all pairs of two point clouds, tile by tile: no matrix of the size of all pairs is formed.
//
//   sum_rows      log_sum[i] = log sum_j E_ij
//   multiply      out[i, :]  = sum_j E_ij <left_i, right_j> v[j, :]
//   differentiate out[i, :]  = sum_j E_ij <left_i, right_j> dC_ij / dx_i
//
// with E_ij = exp(row_bias_i + column_bias_j - C_ij), see core/transport_clouds.h.
//
// Points are packed in panels of kPanel, feature after feature: panel[d, lane]. A panel serves as columns,
// read by vectors, and as rows, whose points are broadcast one by one. The last panel is filled with zeros.
//
// A call computes one block of kRowPanels panels of rows, against all columns, kColumnPanels panels at a
// time: products of kRows rows by one panel accumulate in registers, over kDepth features at a time so that
// both panels stay in L1; the tile of scores that they make stays in L2, where the exponential turns it into
// weights. Blocks are independent: results do not depend on the threads that share them out.
//
// Sums over a tile's columns are in registers, and the tiles' sums are added up: two levels, so that rounding
// grows with the number of tiles and not of columns.
//
// Where potentials are near a solution all E_ij are moderate, and no maximum is needed. A row whose sum
// leaves [1/kTrust, kTrust] is computed again with its block, against a running maximum.
//
// No include guard: included once for every SIMD level.

#include "core/exponential.h"
#include "core/products.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct CloudTiles {
  static constexpr int64_t width = Vector<T>::width;
  static constexpr int64_t kVectors = 3;  // by four rows: twelve sums in registers hide the latency of an FMA
  static constexpr int64_t kPanel = kVectors * width;
  static constexpr int64_t kRows = kPanel % 4 ? 2 : 4;
  static constexpr int64_t kRowPanels = 4, kColumnPanels = 8, kDepth = 128;
  static constexpr int64_t kBlock = kRowPanels * kPanel;       // rows of a tile
  static constexpr int64_t kBreadth = kColumnPanels * kPanel;  // its columns
  static constexpr T kTrust = sizeof(T) == 4 ? T(1e13) : T(1e90);
  // weights saturate here: a point without mass may get there before convergence, and 0 times it must be 0
  static constexpr T kMostPower = sizeof(T) == 4 ? T(87.5) : T(708.5);
  static constexpr T lowest = std::numeric_limits<T>::lowest() / 4;
};

template <class T>
int64_t cloud_panel() {
  return CloudTiles<T>::kPanel;
}

template <class T>
int64_t cloud_block() {
  return CloudTiles<T>::kBlock;
}

// Elements that a worker needs: two tiles, and for each row its sums, of which there are `columns`.
template <class T>
int64_t cloud_memory(int64_t columns) {
  using Tiles = CloudTiles<T>;
  return Tiles::kBlock * (2 * Tiles::kBreadth + std::max(2 * Tiles::width, columns));
}

// [n, features] to panels; own[i], if asked for, is the point's own part of -C.
template <class T>
void pack_cloud(const T* points, int64_t n, int64_t features, PairCost cost, T* panels, T* own) {
  constexpr int64_t kPanel = CloudTiles<T>::kPanel;
  int64_t whole = (n + kPanel - 1) / kPanel * kPanel;
  for (int64_t first = 0; first < whole; first += kPanel)
    for (int64_t d = 0; d < features; ++d)
      for (int64_t lane = 0; lane < kPanel; ++lane)
        *panels++ = first + lane < n ? points[(first + lane) * features + d] : T(0);
  for (int64_t i = 0; own && i < whole; ++i) {
    const T* point = points + i * features;
    own[i] = i < n && cost == PairCost::square ? -dot(point, point, features) / 2 : T(0);
  }
}

// What a pair of coordinates adds to a score; the root is taken of the sum.
template <class T, PairCost cost>
inline vec<T> pair_term(vec<T> sum, T x, vec<T> y, T p) {
  if constexpr (cost == PairCost::dot || cost == PairCost::square) return sum + x * y;
  vec<T> apart = x - y;
  if constexpr (cost == PairCost::root) return sum + apart * apart;
  return sum - exp<T>(p * log<T>(apart < T(0) ? -apart : apart));
}

template <class T, PairCost cost>
inline void score_rows(const T* rows, const T* columns, int64_t depth, T p, bool first, T* tile) {
  using Tiles = CloudTiles<T>;
  vec<T> total[Tiles::kRows][Tiles::kVectors] = {};
  if (!first)
    for (int64_t r = 0; r < Tiles::kRows; ++r)
      for (int64_t v = 0; v < Tiles::kVectors; ++v)
        total[r][v] = load(tile + r * Tiles::kBreadth + v * Tiles::width);
  for (int64_t d = 0; d < depth; ++d) {
    vec<T> y[Tiles::kVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < Tiles::kVectors; ++v) y[v] = load(columns + d * Tiles::kPanel + v * Tiles::width);
#pragma GCC unroll 4
    for (int64_t r = 0; r < Tiles::kRows; ++r) {
      T x = rows[d * Tiles::kPanel + r];
#pragma GCC unroll 4
      for (int64_t v = 0; v < Tiles::kVectors; ++v) total[r][v] = pair_term<T, cost>(total[r][v], x, y[v], p);
    }
  }
  for (int64_t r = 0; r < Tiles::kRows; ++r)
    for (int64_t v = 0; v < Tiles::kVectors; ++v)
      store(tile + r * Tiles::kBreadth + v * Tiles::width, total[r][v]);
}

template <class T>
inline vec<T> square_root(vec<T> x) {
  for (int64_t lane = 0; lane < Vector<T>::width; ++lane)
    x[lane] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(x[lane]))) : T(__builtin_sqrt(double(x[lane])));
  return x;
}

// Some panels of rows against some of columns.
struct TilePlace {
  int64_t row_panel, row_panels, column_panel, column_panels;
};

// tile[i, j] = -C_ij, without the points' own parts.
template <class T, PairCost cost>
void score_tile(const T* rows, const T* columns, int64_t features, T p, TilePlace at, T* tile) {
  using Tiles = CloudTiles<T>;
  for (int64_t d = 0; d < features; d += Tiles::kDepth) {
    int64_t depth = std::min(Tiles::kDepth, features - d);
    for (int64_t c = 0; c < at.column_panels; ++c)
      for (int64_t r = 0; r < at.row_panels; ++r)
        for (int64_t i = 0; i < Tiles::kPanel; i += Tiles::kRows)
          score_rows<T, cost>(rows + ((at.row_panel + r) * features + d) * Tiles::kPanel + i,
                              columns + ((at.column_panel + c) * features + d) * Tiles::kPanel, depth, p,
                              d == 0, tile + (r * Tiles::kPanel + i) * Tiles::kBreadth + c * Tiles::kPanel);
  }
  if (cost == PairCost::root)
    for (int64_t i = 0; i < at.row_panels * Tiles::kPanel; ++i)
      for (int64_t j = 0; j < at.column_panels * Tiles::kPanel; j += Tiles::width) {
        T* place = tile + i * Tiles::kBreadth + j;
        store(place, -square_root<T>(load(place)));
      }
}

template <class T>
class CloudBlock {
 public:
  using Tiles = CloudTiles<T>;

  CloudBlock(const CloudPass<T>& pass, int64_t block, T* memory)
      : p(pass), first(block * Tiles::kBlock), rows(std::min(Tiles::kBlock, pass.n - first)), tile(memory) {
    factors = tile + Tiles::kBlock * Tiles::kBreadth;
    sums = factors + Tiles::kBlock * Tiles::kBreadth;
  }

  // log sum_j E_ij; with `anywhere`, wherever the potentials stand.
  void sum_rows(bool anywhere, T* log_sum) {
    if (!anywhere) anywhere = !sum_rows<false>(log_sum + first);
    if (anywhere) sum_rows<true>(log_sum + first);
  }

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
        for (int64_t c = 0; c < padded_columns(columns); c += Tiles::width)
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
          for (int64_t c = 0; c < padded_columns(columns); c += Tiles::width) {
            int64_t panel = (j + c) / Tiles::kPanel, lane = (j + c) % Tiles::kPanel;
            vec<T> apart = x[(first + i) * p.features + d] -
                           load(p.columns + (panel * p.features + d) * Tiles::kPanel + lane);
            vec<T> size = apart < T(0) ? -apart : apart;
            vec<T> slope = p.p * exp<T>((p.p - T(1)) * log<T>(size));
            slope = size < least ? vec<T>{} : apart < T(0) ? -slope : slope;
            total += load(tile + i * Tiles::kBreadth + c) * slope;
          }
          here[i * p.features + d] += sum<T>(total);
        }
    });
  }

 private:
  static int64_t panels(int64_t count) { return (count + Tiles::kPanel - 1) / Tiles::kPanel; }
  static int64_t padded_columns(int64_t columns) { return panels(columns) * Tiles::kPanel; }

  // Calls work(first column, columns) for tile after tile, whose scores are then in `tile`.
  template <class Work>
  void each_tile(const Work& work) {
    for (int64_t j = 0; j < p.m; j += Tiles::kBreadth) {
      int64_t columns = std::min(Tiles::kBreadth, p.m - j);
      TilePlace at = place(j, columns);
      if (p.cost == PairCost::root)
        score_tile<T, PairCost::root>(p.rows, p.columns, p.features, p.p, at, tile);
      else if (p.cost == PairCost::power)
        score_tile<T, PairCost::power>(p.rows, p.columns, p.features, p.p, at, tile);
      else
        score_tile<T, PairCost::dot>(p.rows, p.columns, p.features, p.p, at, tile);
      work(j, columns);
    }
  }

  TilePlace place(int64_t j, int64_t columns) const {
    return {first / Tiles::kPanel, panels(rows), j / Tiles::kPanel, panels(columns)};
  }

  // Sums every row; false if a sum is not to be trusted, which cannot be with the running maximum.
  template <bool with_maximum>
  bool sum_rows(T* log_sum) {
    constexpr int64_t width = Tiles::width;
    T* most = sums + Tiles::kBlock * width;  // [rows, width] both: lanes have maxima of their own
    std::fill(sums, sums + rows * width, T(0));
    std::fill(most, most + rows * width, with_maximum ? Tiles::lowest : T(0));
    each_tile([&](int64_t j, int64_t columns) {
      for (int64_t i = 0; i < rows; ++i) {
        const T* row = tile + i * Tiles::kBreadth;
        const T own = p.row_bias[first + i];
        vec<T> total = {}, shift = load(most + i * width);
        if constexpr (with_maximum) {
          vec<T> before = shift;
          for (int64_t c = 0; c < padded_columns(columns); c += width)
            shift = max<T>(shift, (load(row + c) + load(p.column_bias + j + c)) + own);
          store(sums + i * width, load(sums + i * width) * exp<T>(before - shift));
          store(most + i * width, shift);
        }
        for (int64_t c = 0; c < padded_columns(columns); c += width) {
          vec<T> score = (load(row + c) + load(p.column_bias + j + c)) + own;
          total += exp<T>(with_maximum ? score - shift : score);
        }
        store(sums + i * width, load(sums + i * width) + total);
      }
    });
    bool trusted = true;
    for (int64_t i = 0; i < rows; ++i) {
      vec<T> lanes = load(sums + i * width), shift = load(most + i * width);
      T top = largest<T>(shift);
      T total = sum<T>(with_maximum ? lanes * exp<T>(shift - top) : lanes);
      trusted &= total >= 1 / Tiles::kTrust && total <= Tiles::kTrust;
      log_sum[i] = T(__builtin_log(double(total))) + top;
    }
    return trusted;
  }

  // Scores become weights, times their factors, by way of as(weight, score).
  template <class As>
  void weigh(int64_t j, int64_t columns, const PairFactor<T>& factor, const As& as) {
    if (factor.rank)
      score_tile<T, PairCost::dot>(factor.left, factor.right, factor.rank, T(1), place(j, columns), factors);
    for (int64_t i = 0; i < rows; ++i) {
      const T own = p.row_bias[first + i];
      for (int64_t c = 0; c < padded_columns(columns); c += Tiles::width) {
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
  T *tile, *factors;  // [kBlock, kBreadth]
  T* sums;            // [kBlock, columns of the result], or two vectors a row
};

template <class T>
void sum_cloud_rows(const CloudPass<T>& pass, int64_t block, bool anywhere, T* log_sum, T* memory) {
  CloudBlock<T>(pass, block, memory).sum_rows(anywhere, log_sum);
}

template <class T>
void multiply_cloud(const CloudPass<T>& pass, int64_t block, const PairFactor<T>& factor, const T* v,
                    int64_t columns, T* out, T* memory) {
  CloudBlock<T>(pass, block, memory).multiply(factor, v, columns, out);
}

template <class T>
void differentiate_cloud(const CloudPass<T>& pass, int64_t block, const PairFactor<T>& factor, const T* x,
                         const T* y, T* out, T* memory) {
  CloudBlock<T> work(pass, block, memory);
  if (pass.cost == PairCost::root)
    work.differentiate_root(factor, x, y, out);
  else
    work.differentiate_power(factor, x, out);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
