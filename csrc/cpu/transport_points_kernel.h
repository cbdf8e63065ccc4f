// Costs between the points of two small clouds, for one problem, which cpu/transport_iteration.h reads while
// they are in the cache.
//
//   dot      C_ij = -<x_i, y_j>
//   angle    C_ij = 1 - <x_i, y_j>                       of directions
//   square   C_ij = |x_i|^2 + |y_j|^2 - 2 <x_i, y_j>     about the clouds' common centre
//
// Distances do not depend on the centre, but the Gram form loses digits where the origin is far away. y is
// copied about it, kDepth features at a time, which with a few rows of x stay in the L2 cache; the products
// are those of core/products.h, without packing: both factors are rows along which vectors are read.
// Meanwhile the points of a later problem are fetched. Between equal clouds half of the costs are made, and
// stand for the others too.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct PointTiles {
  static constexpr int64_t kRows = 4, kColumns = 3;  // twelve sums in registers hide the latency of an FMA
  static constexpr int64_t kDepth = 1024;            // features
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

template <class T>
class PointCosts {
 public:
  using Tiles = PointTiles<T>;
  static constexpr int64_t kRows = Tiles::kRows;

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
        later(x, y, n * features, m * features, later) {
    stride = spread<T>(std::min(features, Tiles::kDepth));
    centre = memory.take(stride);
    left = memory.take(kRows * stride);
    right = memory.take(m * stride);
    norms = memory.take(m);
    products = memory.take(kRows * m);
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
    for (int64_t j = 0; j < m; ++j)
      norms[j] = copy(y + j * features + first, about, depth, right + j * stride);
    const T base = first == 0 && kind == PointCost::angle ? T(1) : T(0);
    const T scale = about ? T(-2) : T(-1);
    for (int64_t i = 0; i < n; i += kRows) {
      const int64_t rows = std::min(kRows, n - i);
      T own[kRows];
      for (int64_t r = 0; r < rows; ++r)
        own[r] = base + copy(x + (i + r) * features + first, about, depth, left + r * stride);
      const int64_t begin = alike ? i : 0;
      multiply(rows, begin, padded<T>(depth));
      for (int64_t r = 0; r < rows; ++r) {
        T* row = cost + (i + r) * ldc;
        for (int64_t j = begin; j < m; ++j) {
          T here = (own[r] + norms[j]) + scale * products[r * m + j];
          row[j] = first ? row[j] + here : here;
        }
      }
    }
  }

  // Half the sum of both clouds' means.
  const T* find_centre(int64_t first, int64_t depth) {
    std::fill(centre, centre + depth, T(0));
    add_rows(x + first, n, depth);
    add_rows(y + first, m, depth);
    return centre;
  }

  void add_rows(const T* rows, int64_t count, int64_t depth) {
    const T share = T(0.5) / T(count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < depth; ++d) centre[d] += share * rows[i * features + d];
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
    constexpr int64_t width = Vector<T>::width;
    vec<T> total[4] = {};
    int64_t d = 0;
    for (; d + 4 * width <= size; d += 4 * width)
#pragma GCC unroll 4
      for (int64_t k = 0; k < 4; ++k) total[k] += load(row + d + k * width) * load(row + d + k * width);
    for (; d < size; d += width) total[0] += load(row + d) * load(row + d);
    return sum<T>((total[0] + total[1]) + (total[2] + total[3]));
  }

  void multiply(int64_t rows, int64_t begin, int64_t depth) {
    if (rows < kRows) {
      dots(left, stride, rows, right + begin * stride, stride, m - begin, depth, products + begin, m);
      return;
    }
    constexpr int64_t kColumns = Tiles::kColumns;
    int64_t j = begin;
    for (; j + kColumns <= m; j += kColumns) {
      dots_tile<T, kRows, kColumns>(left, stride, right + j * stride, stride, depth, products + j, m);
      later.fetch();
    }
    dots_rows<T, kRows, kColumns>(left, stride, right + j * stride, stride, m - j, depth, products + j, m);
  }

  const T *x, *y;
  const int64_t n, m, features;
  const PointCost kind;
  LaterPoints<T> later;
  bool alike = false;  // x and y are the same points
  int64_t stride;
  T* centre;    // [stride]
  T* left;      // [kRows, stride]
  T* right;     // [m, stride]
  T* norms;     // [m]
  T* products;  // [kRows, m]
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
