// Tiles of the matrix of costs between two point clouds, which is never formed as a whole.
//
// Points are packed in panels of kPanel, feature after feature: panel[d, lane]. A panel serves as columns,
// read by vectors, and as rows, whose points are broadcast one by one. The last panel is filled with zeros.
//
// Products of kRows rows by one panel accumulate in registers, over kDepth features at a time so that both
// panels stay in L1. A tile is [rows, kBreadth] and stays in L2, where the exponential turns scores into
// weights.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct CloudTiles {
  static constexpr int64_t width = Vector<T>::width;
  static constexpr int64_t kVectors = 3;  // by four rows: twelve sums in registers hide the latency of an FMA
  static constexpr int64_t kPanel = kVectors * width;
  static constexpr int64_t kRows = kPanel % 4 ? 2 : 4;
  static constexpr int64_t kRowPanels = 4, kColumnPanels = 8, kDepth = 128;
  static constexpr int64_t kBlock = kRowPanels * kPanel;       // most rows of a tile
  static constexpr int64_t kBreadth = kColumnPanels * kPanel;  // its columns
  // weights saturate here: a point without mass may get there before convergence, and 0 times it must be 0
  static constexpr T kMostPower = sizeof(T) == 4 ? T(87.5) : T(708.5);
  static constexpr T lowest = std::numeric_limits<T>::lowest() / 4;

  static int64_t panels(int64_t count) { return (count + kPanel - 1) / kPanel; }
  static int64_t padded_columns(int64_t columns) { return round_up(columns, kPanel); }
};

template <class T>
int64_t cloud_panel() {
  return CloudTiles<T>::kPanel;
}

template <class T>
int64_t cloud_block() {
  return CloudTiles<T>::kBlock;
}

// [n, features] to panels; own[i], if asked for, is the point's own part of -C.
template <class T>
void pack_cloud(const T* points, int64_t n, int64_t features, PairCost cost, T* panels, T* own) {
  constexpr int64_t kPanel = CloudTiles<T>::kPanel;
  int64_t whole = CloudTiles<T>::padded_columns(n);
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
  vec<T> size = apart < T(0) ? -apart : apart;
  if constexpr (cost == PairCost::sizes) return sum - size;
  if constexpr (cost == PairCost::squares) return sum - size * size;
  return sum - exp<T>(p * log<T>(size));
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

// Some rows, beginning with one whose number kRows divides, against some columns, beginning with a panel.
struct TilePlace {
  int64_t first_row, rows, first_column, columns;
};

// tile[i, j] = -C_ij, without the points' own parts; padded to whole kRows and whole panels.
template <class T, PairCost cost>
void score_tile(const T* rows, const T* columns, int64_t features, T p, TilePlace at, T* tile) {
  using Tiles = CloudTiles<T>;
  constexpr int64_t kPanel = Tiles::kPanel;
  const int64_t column_panels = Tiles::panels(at.columns);
  for (int64_t d = 0; d < features; d += Tiles::kDepth) {
    int64_t depth = std::min(Tiles::kDepth, features - d);
    for (int64_t c = 0; c < column_panels; ++c) {
      const T* panel = columns + ((at.first_column / kPanel + c) * features + d) * kPanel;
      for (int64_t i = 0; i < at.rows; i += Tiles::kRows) {
        int64_t row = at.first_row + i;
        score_rows<T, cost>(rows + (row / kPanel * features + d) * kPanel + row % kPanel, panel, depth, p,
                            d == 0, tile + i * Tiles::kBreadth + c * kPanel);
      }
    }
  }
  if (cost == PairCost::root)
    for (int64_t i = 0; i < at.rows; ++i)
      for (int64_t j = 0; j < column_panels * kPanel; j += Tiles::width) {
        T* place = tile + i * Tiles::kBreadth + j;
        store(place, -square_root<T>(load(place)));
      }
}

// The same for the cost that a pass says.
template <class T>
void score_tile(const CloudPass<T>& pass, TilePlace at, T* tile) {
  auto make = [&](auto cost) {
    score_tile<T, decltype(cost)::value>(pass.rows, pass.columns, pass.features, pass.p, at, tile);
  };
  if (pass.cost == PairCost::root)
    make(std::integral_constant<PairCost, PairCost::root>());
  else if (pass.cost == PairCost::power && pass.p == T(1))
    make(std::integral_constant<PairCost, PairCost::sizes>());
  else if (pass.cost == PairCost::power && pass.p == T(2))
    make(std::integral_constant<PairCost, PairCost::squares>());
  else if (pass.cost == PairCost::power)
    make(std::integral_constant<PairCost, PairCost::power>());
  else
    make(std::integral_constant<PairCost, PairCost::dot>());
}

}  // namespace geokernels::GEOKERNELS_LEVEL
