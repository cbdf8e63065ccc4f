// One sweep of Sinkhorn's iteration over the pairs of two point clouds, a strip of rows at a time.
//
//   sum_strip     E_ij = exp(row_bias_i + column_bias_j - temper C_ij - top_i),   sum_i = sum_j E_ij b_j
//   add_columns   column_j += sum_i s_i E_ij
//
// A strip is a few rows against all columns, kept as tiles side by side: [rows, kBreadth] each. Its row sums
// say where the rows' potentials move, and s_i with them; its columns are then summed with the rows where
// they have moved to. One set of products and exponentials serves both half-steps.
//
// Where potentials are near a solution all E_ij are moderate, and top is 0. Elsewhere, and where a sum leaves
// [1/kTrust, kTrust], top is the row's largest power. An E_ij that overflows is infinite, and so is the sum
// that it counts in, which then is not trusted: cut off, it might pass unseen beside a small weight.
//
// Sums over a tile's columns, and over a strip's rows, are in registers, and tiles and strips are added up:
// two levels, so that rounding grows with their number and not that of the points.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_clouds_tiles.h"
// on its panels
#include "cpu/transport_clouds_moments_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

// Rows of a strip: those of a tile, fewer where it would not stay in L3.
template <class T>
int64_t strip_rows(int64_t m) {
  using Tiles = CloudTiles<T>;
  constexpr int64_t kMost = (8 << 20) / sizeof(T);
  return std::clamp<int64_t>(kMost / Tiles::padded_columns(m) / 8 * 8, 8, Tiles::kBlock / 8 * 8);
}

template <class T>
struct StripRoom {
  T *lanes, *tops;  // [rows, width]: the lanes' own sums and maxima
  T* strip;         // tiles of [rows, kBreadth]

  StripRoom(Workspace<T>& from, int64_t rows, int64_t m) {
    using Tiles = CloudTiles<T>;
    lanes = from.take(rows * Tiles::width);
    tops = from.take(rows * Tiles::width);
    strip = from.take(round_up(m, Tiles::kBreadth) * rows);
  }
};

template <class T>
int64_t strip_memory(int64_t rows, int64_t m) {
  return room_for<StripRoom, T>(rows, m);
}

template <class T>
class CloudStrip {
 public:
  using Tiles = CloudTiles<T>;
  static constexpr int64_t width = Tiles::width;

  // `whole` being strip_rows.
  CloudStrip(const CloudPass<T>& pass, int64_t first, int64_t whole, const StripRoom<T>& room)
      : p(pass),
        first(first),
        rows(std::min(whole, pass.n - first)),
        whole(whole),
        lanes(room.lanes),
        tops(room.tops),
        strip(room.strip) {}

  // Fills the strip, and log_sum[i] + top[i] = log sum_j E_ij b_j at the given biases.
  void sum(const T* weight, bool anywhere, T* log_sum, T* top) {
    if (!anywhere) anywhere = !sum_near(weight, log_sum, top);
    if (anywhere) sum_anywhere(weight, log_sum, top);
  }

  // Adds the strip's share to the sums of the columns.
  void add_columns(const T* scale, T* column) const {
    constexpr int64_t kVectors = 4;
    each_tile([&](int64_t j, int64_t columns, const T* tile) {
      int64_t c = 0;
      for (; c + kVectors * width <= columns; c += kVectors * width)
        add<kVectors>(tile + c, scale, column + j + c);
      for (; c < columns; c += width) add<1>(tile + c, scale, column + j + c);
    });
  }

  // For every row what core/transport_value.h sums over the pairs, b_j times C_ij, rest(f_i + g_j - C_ij) and
  // rest(-C_ij). The pass has the points' own parts of C as biases; g is padded.
  void rest(const T* weight, const T* f, const T* g, PairSums* found) {
    for (int64_t i = 0; i < rows; ++i) found[i] = {};
    each_new_tile([&](int64_t j, int64_t columns, const T* tile) {
      for (int64_t i = 0; i < rows; ++i) {
        const T* row = tile + i * Tiles::kBreadth;
        const T own = p.row_bias[first + i], potential = f[first + i];
        vec<T> cost = {}, rest = {}, constant = {};
        for (int64_t c = 0; c < columns; c += width) {
          const vec<T> b = load(weight + j + c), score = (load(row + c) + load(p.column_bias + j + c)) + own;
          cost -= b > T(0) ? b * score : vec<T>{};
          rest += b > T(0) ? b * exp_rest<T>((potential + load(g + j + c)) + score) : vec<T>{};
          constant += b > T(0) ? b * exp_rest<T>(score) : vec<T>{};
        }
        namespace level = geokernels::GEOKERNELS_LEVEL;
        found[i].add(1, {level::sum<T>(cost), level::sum<T>(rest), level::sum<T>(constant)});
      }
    });
  }

 private:
  // e^30 leaves float32 room above its least number; float64 can wait longer
  static constexpr T kTrust = sizeof(T) == 4 ? T(1e13) : T(1e90);

  // Calls work(first column, columns in whole panels, tile).
  template <class Work>
  void each_tile(const Work& work) const {
    for (int64_t j = 0; j < p.m; j += Tiles::kBreadth)
      work(j, Tiles::padded_columns(std::min(Tiles::kBreadth, p.m - j)), strip + j * whole);
  }

  template <class Work>
  void each_new_tile(const Work& work) const {
    each_tile([&](int64_t j, int64_t columns, T* tile) {
      score_tile<T>(p, {first, rows, j, columns}, tile);
      work(j, columns, tile);
    });
  }

  bool sum_near(const T* weight, T* log_sum, T* top) {
    std::fill(lanes, lanes + rows * width, T(0));
    each_new_tile([&](int64_t j, int64_t columns, T* tile) {
      for (int64_t i = 0; i < rows; ++i) {
        T* row = tile + i * Tiles::kBreadth;
        const T own = p.row_bias[first + i], temper = p.temper;
        const T *bias = p.column_bias + j, *b = weight + j;
        vec<T> total = {};
        for (int64_t c = 0; c < columns; c += width) {
          vec<T> power = (temper * load(row + c) + load(bias + c)) + own;
          const vec<T> e = exp<T>(power), there = load(b + c);
          total += there > T(0) ? e * there : vec<T>{};
          store(row + c, e);
        }
        store(lanes + i * width, load(lanes + i * width) + total);
      }
    });
    std::fill(top, top + rows, T(0));
    return finish(log_sum);
  }

  void sum_anywhere(const T* weight, T* log_sum, T* top) {
    std::fill(lanes, lanes + rows * width, T(0));
    std::fill(tops, tops + rows * width, Tiles::lowest);
    each_new_tile([&](int64_t j, int64_t columns, T* tile) {
      for (int64_t i = 0; i < rows; ++i) {
        T* row = tile + i * Tiles::kBreadth;
        const T own = p.row_bias[first + i], temper = p.temper;
        vec<T> most = load(tops + i * width);
        for (int64_t c = 0; c < columns; c += width) {
          vec<T> power = (temper * load(row + c) + load(p.column_bias + j + c)) + own;
          // a point without mass is no reason to let the others vanish
          most = load(weight + j + c) > T(0) ? max<T>(most, power) : most;
          store(row + c, power);
        }
        store(tops + i * width, most);
      }
    });
    for (int64_t i = 0; i < rows; ++i) top[i] = largest<T>(load(tops + i * width));
    each_tile([&](int64_t j, int64_t columns, T* tile) {
      for (int64_t i = 0; i < rows; ++i) {
        T* row = tile + i * Tiles::kBreadth;
        vec<T> total = {};
        for (int64_t c = 0; c < columns; c += width) {
          vec<T> power = load(row + c) - top[i];
          const vec<T> e = exp<T>(power), there = load(weight + j + c);
          total += there > T(0) ? e * there : vec<T>{};
          store(row + c, e);
        }
        store(lanes + i * width, load(lanes + i * width) + total);
      }
    });
    finish(log_sum);
  }

  // The logarithms of the sums; whether all are to be trusted, which against a maximum they are.
  bool finish(T* log_sum) const {
    bool trusted = true;
    for (int64_t i = 0; i < rows; ++i) {
      T total = geokernels::GEOKERNELS_LEVEL::sum<T>(load(lanes + i * width));
      trusted &= total >= 1 / kTrust && total <= kTrust;
      log_sum[i] = T(__builtin_log(double(total)));
    }
    return trusted;
  }

  template <int64_t vectors>
  void add(const T* tile, const T* scale, T* column) const {
    vec<T> total[vectors] = {};
    for (int64_t i = 0; i < rows; ++i) {
      if (scale[i] == 0) continue;  // no mass: 0 even where E is infinite
      const T* row = tile + i * Tiles::kBreadth;
#pragma GCC unroll 8
      for (int64_t v = 0; v < vectors; ++v) total[v] += load(row + v * width) * scale[i];
    }
    for (int64_t v = 0; v < vectors; ++v) store(column + v * width, load(column + v * width) + total[v]);
  }

  const CloudPass<T>& p;
  const int64_t first, rows, whole;
  T *const lanes, *const tops, *const strip;  // of StripRoom
};

// Rows from `first` on; log_sum and top are [strip_rows], for this strip alone.
template <class T>
void sum_strip(const CloudPass<T>& pass, int64_t first, int64_t whole, const T* weight, bool anywhere,
               T* log_sum, T* top, Workspace<T> memory) {
  CloudStrip<T>(pass, first, whole, StripRoom<T>(memory, whole, pass.m)).sum(weight, anywhere, log_sum, top);
}

// found is [strip_rows], for this strip alone.
template <class T>
void rest_strip(const CloudPass<T>& pass, int64_t first, int64_t whole, const T* weight, const T* f,
                const T* g, PairSums* found, Workspace<T> memory) {
  CloudStrip<T>(pass, first, whole, StripRoom<T>(memory, whole, pass.m)).rest(weight, f, g, found);
}

// After sum_strip, with the same memory.
template <class T>
void add_strip_columns(const CloudPass<T>& pass, int64_t first, int64_t whole, const T* scale, T* column,
                       Workspace<T> memory) {
  CloudStrip<T>(pass, first, whole, StripRoom<T>(memory, whole, pass.m)).add_columns(scale, column);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
