// The gradient of a sum of weighted costs between two small clouds to the points of the first, for one
// problem.
//
//   dot, angle   out_i = -sum_j w_ij y_j
//   square       out_i = 2 sum_j w_ij (x_i - y_j)        about the centre of y, kDepth features at a time
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
class PointGradient {
 public:
  static int64_t workspace(int64_t n, int64_t m) {
    Workspace<T> counted;
    PointGradient(nullptr, nullptr, nullptr, n, m, 0, counted);
    return counted.taken();
  }

  // w [n, m], x [n, features], y [m, features]
  PointGradient(const T* w, const T* x, const T* y, int64_t n, int64_t m, int64_t features,
                Workspace<T>& memory)
      : w(w), x(x), y(y), n(n), m(m), features(features) {
    scaled = memory.take(n * m);
    centre = memory.take(stride);
    right = memory.take(m * stride);
  }

  void write(PointCost kind, T* out) {
    const T scale = kind == PointCost::square ? T(-2) : T(-1);
    for (int64_t k = 0; k < n * m; ++k) scaled[k] = scale * w[k];
    if (kind != PointCost::square) {
      combine(scaled, m, n, y, features, m, features, out, features);
      return;
    }
    for (int64_t d = 0; d < features; d += kDepth) {
      const int64_t depth = std::min(kDepth, features - d);
      copy(d, depth);
      start(d, depth, out);
      combine(scaled, m, n, right, stride, m, depth, out + d, features, true);
    }
  }

 private:
  static constexpr int64_t kDepth = 512;  // features: with those, a few dozen points stay in L2
  static constexpr int64_t stride = spread<T>(kDepth);

  // y about its centre.
  void copy(int64_t first, int64_t depth) {
    const T share = T(1) / T(m);
    std::fill(centre, centre + depth, T(0));
    for (int64_t j = 0; j < m; ++j)
      for (int64_t d = 0; d < depth; ++d) centre[d] += share * y[j * features + first + d];
    for (int64_t j = 0; j < m; ++j)
      for (int64_t d = 0; d < depth; ++d) right[j * stride + d] = y[j * features + first + d] - centre[d];
  }

  // The part of x_i itself, 2 sum_j w_ij x_i, about the same centre.
  void start(int64_t first, int64_t depth, T* out) const {
    for (int64_t i = 0; i < n; ++i) {
      T total = 0;
      for (int64_t j = 0; j < m; ++j) total -= scaled[i * m + j];
      const T* row = x + i * features + first;
      for (int64_t d = 0; d < depth; ++d) out[i * features + first + d] = total * (row[d] - centre[d]);
    }
  }

  const T *w, *x, *y;
  const int64_t n, m, features;
  T* scaled;  // [n, m], w as it multiplies y
  T* centre;  // [stride]
  T* right;   // [m, stride]
};

template <class T>
int64_t point_gradient_workspace(int64_t n, int64_t m) {
  return PointGradient<T>::workspace(n, m);
}

template <class T>
void point_gradient(const T* w, const T* x, const T* y, int64_t n, int64_t m, int64_t features,
                    PointCost kind, T* out, Workspace<T> memory) {
  PointGradient<T>(w, x, y, n, m, features, memory).write(kind, out);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
