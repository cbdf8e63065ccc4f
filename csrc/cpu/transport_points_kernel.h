// Costs between the points of two small clouds, for one problem, which cpu/transport_iteration.h reads while
// they are in the cache.
//
//   dot      C_ij = -<x_i, y_j>
//   angle    C_ij = 1 - <x_i, y_j>                       of directions
//   square   C_ij = |x_i|^2 + |y_j|^2 - 2 <x_i, y_j>     about the clouds' common centre
//
// Distances do not depend on the centre, but the Gram form loses digits where the origin is far away.
// Features are taken kDepth at a time, and summed up to the costs: sums of products are so short that they
// lose no more digits than those of a BLAS, and y about the centre, packed, stays in the L2 cache. It is
// packed in panels: of a few vectors of columns the first feature, then the second, so that products are sums
// over features of a number of x times a vector of y, with none to be made of the lanes of a vector.
// Meanwhile the points of a later problem are fetched. Between equal clouds about half of the costs are made,
// and stand for the others too.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct PointTiles {
  // as many sums as there are registers for beside a vector of y for each column of sums
  static constexpr int kRows = GEOKERNELS_REGISTERS < 32 ? 4 : 5,
                       kVectors = GEOKERNELS_REGISTERS < 32 ? 3 : 5;
  static constexpr int64_t kDepth = 256;  // features
};

// Points of two clouds that will be read soon. A few lines at a time: many at once would keep the work
// waiting.
template <class T>
struct LaterPoints {
  const T *x, *y;  // null for none
  int64_t most_x, most_y, fetched = 0;

  LaterPoints(const T* x, const T* y, int64_t of_x, int64_t of_y, std::pair<int64_t, int64_t> later)
      : x(later.first > 0 ? x + later.first : nullptr),
        y(later.first > 0 ? y + later.second : nullptr),
        most_x(of_x),
        most_y(of_y) {}

  void fetch() {
    if (!x) return;
    constexpr int64_t kLines = 8, kLine = 64 / sizeof(T);
    for (const int64_t end = fetched + kLines * kLine; fetched < end; fetched += kLine) {
      if (fetched < most_x) __builtin_prefetch(x + fetched, 0, 2);
      if (fetched < most_y) __builtin_prefetch(y + fetched, 0, 2);
    }
  }
};

// sums[r, v] = sum_d left[r, d] right[d, v], of V vectors in a row of `right` and of `sums`; ld* is the
// distance between rows.
template <class T, int R, int V>
inline void point_products(const T* left, int64_t ldl, const T* right, int64_t ldr, int64_t depth, T* sums,
                           int64_t lds, LaterPoints<T>& later) {
  constexpr int64_t width = Vector<T>::width, some = 16;
  vec<T> total[R][V] = {};
  for (int64_t begin = 0; begin < depth; begin += some) {
    for (int64_t d = begin, end = std::min(depth, begin + some); d < end; ++d, right += ldr) {
      vec<T> of_y[V];
      for (int v = 0; v < V; ++v) of_y[v] = load(right + v * width);
      for (int r = 0; r < R; ++r) {
        const vec<T> of_x = broadcast<T>(left[r * ldl + d]);
        for (int v = 0; v < V; ++v) total[r][v] += of_x * of_y[v];
      }
    }
    later.fetch();
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * lds + v * width, total[r][v]);
}

template <class T>
class PointCosts {
 public:
  using Tiles = PointTiles<T>;
  static constexpr int kRows = Tiles::kRows, kVectors = Tiles::kVectors;
  static constexpr int64_t width = Vector<T>::width;

  static int64_t workspace(int64_t m, int64_t features) {
    Workspace<T> counted;
    PointCosts(nullptr, nullptr, 0, m, features, {0, 0}, PointCost::dot, counted);
    return counted.taken();
  }

  // later: how far on the points to be fetched are, those of x and those of y; 0 for none.
  PointCosts(const T* x, const T* y, int64_t n, int64_t m, int64_t features,
             std::pair<int64_t, int64_t> later, PointCost kind, Workspace<T>& memory)
      : x(x),
        y(y),
        n(n),
        m(m),
        features(features),
        kind(kind),
        later(x, y, n * features, m * features, later),
        most(padded<T>(std::min(features, Tiles::kDepth))),
        vectors((m + width - 1) / width) {
    centre = memory.take(most);
    left = memory.take(kRows * most);
    right = memory.take(vectors * width * most);
    norms = memory.take(vectors * width);
    products = memory.take(kRows * vectors * width);
  }

  void write(T* cost, int64_t ldc) {
    alike = n == m && (x == y || std::memcmp(x, y, n * features * sizeof(T)) == 0);
    for (int64_t d = 0; d < features; d += Tiles::kDepth)
      add(d, std::min(Tiles::kDepth, features - d), cost, ldc);
    for (int64_t i = 0; alike && i < n; ++i)
      for (int64_t j = i + 1; j < m; ++j) cost[j * ldc + i] = cost[i * ldc + j];
  }

 private:
  // What the features from `first` on add to the costs.
  void add(int64_t first, int64_t depth, T* cost, int64_t ldc) {
    const T* about = nullptr;
    if (kind == PointCost::square) about = find_centre(first, depth);
    for (int64_t v = 0; v < vectors; ++v) pack(v, first, depth, about);
    const T base = first == 0 && kind == PointCost::angle ? T(1) : T(0);
    const T scale = about ? T(-2) : T(-1);
    for (int64_t i = 0, rows; i < n; i += rows) {
      rows = rows_at(n - i);
      T own[kRows];
      for (int64_t r = 0; r < rows; ++r)
        own[r] = base + copy(x + (i + r) * features + first, about, depth, left + r * most);
      const int64_t begin = alike ? i / width : 0;
      multiply(rows, begin, depth);
      for (int64_t r = 0; r < rows; ++r) put(own[r], scale, r, begin, first > 0, cost + (i + r) * ldc);
    }
  }

  // Writes or adds what row r of the products makes of its costs, from vector `begin` on. The last vector
  // ends with the columns, where there are so many: some costs come twice, and are the same. Between equal
  // clouds some are none, which are not yet there.
  void put(T own, T scale, int64_t r, int64_t begin, bool more, T* to) const {
    const T* const sums = products + r * vectors * width;
    const auto here = [&](int64_t j) { return (own + load(norms + j)) + scale * load(sums + j); };
    if (m < width) {
      store_first(to, more ? load_first(to, m) + here(0) : here(0), m);
      return;
    }
    const int64_t last = m - width;
    const vec<T> before = more ? load(to + last) : vec<T>{};
    for (int64_t j = begin * width; j <= last; j += width)
      store(to + j, more ? load(to + j) + here(j) : here(j));
    if (m % width) store(to + last, more ? before + here(last) : here(last));
  }

  // How many rows are taken where so many are left: few enough tiles are small.
  static int64_t rows_at(int64_t left) {
    if (left % kRows == 0) return kRows;
    return left >= kRows - 1 ? kRows - 1 : left >= 2 ? 2 : 1;
  }

  // Half the sum of both clouds' means.
  const T* find_centre(int64_t first, int64_t depth) {
    std::fill(centre, centre + padded<T>(depth), T(0));
    add_rows(x + first, n, depth);
    add_rows(y + first, m, depth);
    return centre;
  }

  void add_rows(const T* rows, int64_t count, int64_t depth) {
    constexpr int kTogether = 4;  // vectors, whose additions wait side by side
    int64_t d = 0;
    for (; d + kTogether * width <= depth; d += kTogether * width)
      add_vectors<kTogether>(count, d, [&](int64_t i, int64_t at) { return load(rows + i * features + at); });
    for (; d < depth; d += width)
      add_vectors<1>(count, d, [&](int64_t i, int64_t at) {
        const T* const row = rows + i * features + at;
        return depth - at < width ? load_first(row, depth - at) : load(row);
      });
  }

  template <int V, class Read>
  void add_vectors(int64_t count, int64_t d, const Read& read) {
    const T share = T(0.5) / T(count);
    vec<T> total[V];
    for (int v = 0; v < V; ++v) total[v] = load(centre + d + v * width);
    for (int64_t i = 0; i < count; ++i)
      for (int v = 0; v < V; ++v) total[v] += share * read(i, d + v * width);
    for (int v = 0; v < V; ++v) store(centre + d + v * width, total[v]);
  }

  // A row about the centre, zeros behind it; returns its square where the cost asks for it.
  T copy(const T* row, const T* about, int64_t depth, T* to) const {
    if (about)
      for (int64_t d = 0; d < depth; ++d) to[d] = row[d] - about[d];
    else
      std::copy(row, row + depth, to);
    std::fill(to + depth, to + padded<T>(depth), T(0));
    return about ? square(to, padded<T>(depth)) : T(0);
  }

  // Four sums at a time: one alone would wait for each of its additions.
  static T square(const T* row, int64_t size) {
    vec<T> total[4] = {};
    int64_t d = 0;
    for (; d + 4 * width <= size; d += 4 * width)
#pragma GCC unroll 4
      for (int64_t k = 0; k < 4; ++k) total[k] += load(row + d + k * width) * load(row + d + k * width);
    for (; d < size; d += width) total[0] += load(row + d) * load(row + d);
    return sum<T>((total[0] + total[1]) + (total[2] + total[3]));
  }

  // Vector v of the columns of y: its features one behind the other, and their squares. Lanes without a
  // column repeat the last one.
  void pack(int64_t v, int64_t first, int64_t depth, const T* about) {
    const int64_t panel = v / kVectors * kVectors, wide = panel_vectors(panel) * width;
    const T* const from = y + v * width * features + first;
    T* const to = right + panel * width * most + (v - panel) * width;
    const int64_t last = std::min(width, m - v * width) - 1;
    vec<T> squares[2] = {};
    int64_t d = 0;
    for (; d + width <= depth; d += width)
      turn<true>(from + d, last, width, about ? load(about + d) : vec<T>{}, to + d * wide, wide, squares);
    if (d < depth)
      turn<false>(from + d, last, depth - d, about ? load_first(about + d, depth - d) : vec<T>{},
                  to + d * wide, wide, squares);
    store(norms + v * width, about ? squares[0] + squares[1] : vec<T>{});
  }

  // A vector of features of rows 0 to `last`, of which `count` count, to rows of `to`.
  template <bool whole>
  void turn(const T* from, int64_t last, int64_t count, vec<T> about, T* to, int64_t wide,
            vec<T> (&squares)[2]) const {
    vec<T> block[width];
#pragma GCC unroll 16
    for (int64_t k = 0; k < width; ++k) {
      const T* const row = from + std::min(k, last) * features;
      block[k] = (whole ? load(row) : load_first(row, count)) - about;
    }
    transpose_block<T>(block);
#pragma GCC unroll 16
    for (int64_t k = 0; k < width; ++k) {
      if (!whole && k >= count) break;
      store(to + k * wide, block[k]);
      squares[k % 2] += block[k] * block[k];
    }
  }

  int64_t panel_vectors(int64_t panel) const { return std::min<int64_t>(kVectors, vectors - panel); }

  // Products of rows with the vectors of columns from `begin` on.
  void multiply(int64_t rows, int64_t begin, int64_t depth) {
    for (int64_t panel = begin / kVectors * kVectors; panel < vectors; panel += kVectors) {
      const int64_t own = panel_vectors(panel), skipped = std::max<int64_t>(begin - panel, 0);
      const T* const of_y = right + panel * width * most + skipped * width;
      T* const to = products + (panel + skipped) * width;
      some_vectors<kVectors>(rows, own - skipped, of_y, own * width, depth, to);
    }
  }

  template <int V>
  void some_vectors(int64_t rows, int64_t count, const T* of_y, int64_t ldr, int64_t depth, T* to) {
    if constexpr (V > 1)
      if (count < V) return some_vectors<V - 1>(rows, count, of_y, ldr, depth, to);
    some_rows<kRows, V>(rows, of_y, ldr, depth, to);
  }

  template <int R, int V>
  void some_rows(int64_t rows, const T* of_y, int64_t ldr, int64_t depth, T* to) {
    if constexpr (R > 1)
      if (rows < R) return some_rows<R - 1, V>(rows, of_y, ldr, depth, to);
    point_products<T, R, V>(left, most, of_y, ldr, depth, to, vectors * width, later);
  }

  const T *x, *y;
  const int64_t n, m, features;
  const PointCost kind;
  LaterPoints<T> later;
  const int64_t most;     // features at a time
  const int64_t vectors;  // of columns
  bool alike = false;     // x and y are the same points
  T* centre;              // [most]
  T* left;                // [kRows, most]
  T* right;               // [vectors / kVectors, most, kVectors, width]; of the last panel fewer vectors
  T* norms;               // [vectors, width]
  T* products;            // [kRows, vectors, width]
};

template <class T>
int64_t point_costs_workspace(int64_t m, int64_t features) {
  return PointCosts<T>::workspace(m, features);
}

// cost [n, ldc], of which m columns are written.
template <class T>
void point_costs(const T* x, const T* y, int64_t n, int64_t m, int64_t features,
                 std::pair<int64_t, int64_t> later, PointCost kind, T* cost, int64_t ldc,
                 Workspace<T> memory) {
  PointCosts<T>(x, y, n, m, features, later, kind, memory).write(cost, ldc);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
