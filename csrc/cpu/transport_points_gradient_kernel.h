// The gradient of a sum of weighted costs between two small clouds to the points of the first, for one
// problem.
//
//   dot, angle   out_i = -sum_j w_ij y_j
//   square       out_i = 2 sum_j w_ij (x_i - y_j)        about the centre of y
//
// A few vectors of features at a time: those of y are copied side by side about their centre, into the L1
// cache, and every row of the result is written once, past the caches where they could not hold the results
// of all problems. Meanwhile the points of a later problem are fetched.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_points_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
class PointGradient {
 public:
  static int64_t workspace(int64_t n, int64_t m) {
    Workspace<T> counted;
    PointGradient(nullptr, nullptr, nullptr, n, m, 0, {0, 0}, counted);
    return counted.taken();
  }

  // w [n, m], x [n, features], y [m, features]; later as for PointCosts
  PointGradient(const T* w, const T* x, const T* y, int64_t n, int64_t m, int64_t features,
                std::pair<int64_t, int64_t> later, Workspace<T>& memory)
      : w(w), x(x), y(y), n(n), m(m), features(features), later(x, y, n * features, m * features, later) {
    scaled = memory.take(n * m);
    own = memory.take(n);
    near = memory.take(m * kVectors * width);
  }

  // past: whether nobody will look for the result in a cache
  void write(PointCost kind, bool past, T* out) {
    const bool square = kind == PointCost::square;
    streams = past && can_stream(out) && can_stream(out + features);
    for (int64_t i = 0; i < n; ++i) {
      T total = 0;
      for (int64_t j = 0; j < m; ++j) {
        scaled[i * m + j] = (square ? T(-2) : T(-1)) * w[i * m + j];
        total -= scaled[i * m + j];
      }
      own[i] = total;
    }
    int64_t d = 0;
    for (; d + kVectors * width <= features; d += kVectors * width) columns<kVectors>(square, d, width, out);
    for (; d < features; d += width) columns<1>(square, d, std::min(width, features - d), out);
    if (streams) end_stream();
  }

 private:
  static constexpr int64_t width = Vector<T>::width;
  static constexpr int kRows = 4, kVectors = 2;  // eight sums in registers

  // V vectors of features, of the last of which `count` count.
  template <int V>
  void columns(bool square, int64_t d, int64_t count, T* out) {
    vec<T> centre[V] = {};
    const T share = T(1) / T(m);
    for (int64_t j = 0; j < m; ++j)
      for (int v = 0; v < V; ++v) {
        const vec<T> point = read(y + j * features + d + v * width, count);
        store(near + (j * V + v) * width, point);
        centre[v] += share * point;
      }
    for (int64_t k = 0; square && k < m * V; ++k)
      store(near + k * width, load(near + k * width) - centre[k % V]);
    int64_t i = 0;
    for (; i + kRows <= n; i += kRows) {
      rows<kRows, V>(square, i, d, count, centre, out);
      later.fetch();
    }
    for (; i < n; ++i) rows<1, V>(square, i, d, count, centre, out);
  }

  template <int R, int V>
  void rows(bool square, int64_t i, int64_t d, int64_t count, const vec<T> (&centre)[V], T* out) const {
    vec<T> total[R][V] = {};
    for (int r = 0; square && r < R; ++r)
      for (int v = 0; v < V; ++v)
        total[r][v] = own[i + r] * (read(x + (i + r) * features + d + v * width, count) - centre[v]);
    for (int64_t j = 0; j < m; ++j) {
      vec<T> right[V];
      for (int v = 0; v < V; ++v) right[v] = load(near + (j * V + v) * width);
      for (int r = 0; r < R; ++r) {
        const vec<T> weight = broadcast<T>(scaled[(i + r) * m + j]);
        for (int v = 0; v < V; ++v) total[r][v] += weight * right[v];
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        T* const to = out + (i + r) * features + d + v * width;
        if (V == kVectors && streams)
          stream(to, total[r][v]);
        else
          count == width ? store(to, total[r][v]) : store_first(to, total[r][v], count);
      }
  }

  static vec<T> read(const T* from, int64_t count) {
    return count == width ? load(from) : load_first(from, count);
  }

  const T *w, *x, *y;
  const int64_t n, m, features;
  LaterPoints<T> later;
  bool streams = false;
  T* scaled;  // [n, m], w as it multiplies y
  T* own;     // [n], what multiplies the point itself
  T* near;    // [m, kVectors, width]
};

template <class T>
int64_t point_gradient_workspace(int64_t n, int64_t m) {
  return PointGradient<T>::workspace(n, m);
}

template <class T>
void point_gradient(const T* w, const T* x, const T* y, int64_t n, int64_t m, int64_t features,
                    std::pair<int64_t, int64_t> later, PointCost kind, bool past, T* out,
                    Workspace<T> memory) {
  PointGradient<T>(w, x, y, n, m, features, later, memory).write(kind, past, out);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
