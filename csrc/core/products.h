// Products of matrices a few dozen rows high, whose long side is the features.
//
//   dots      out[i, j]  = sum_d a[i, d] b[j, d]
//   combine   out[i, d]  = sum_j w[i, j] b[j, d]      or += with accumulate
//
// Everything is row-major; ld* is the distance between rows. Register tiles of four rows; for
// every element the order of summation depends on the inner size and the vector width alone.
//
// No include guard: included once for every SIMD level, after core/simd.h.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T, int R, int C>
inline void dots_tile(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t size, T* out, int64_t ldo) {
  constexpr int64_t width = Vector<T>::width;
  vec<T> total[R][C] = {};
  auto step = [&](auto read) {
    vec<T> right[C];
    for (int c = 0; c < C; ++c) right[c] = read(b + c * ldb);
    for (int r = 0; r < R; ++r) {
      const vec<T> left = read(a + r * lda);
      for (int c = 0; c < C; ++c) total[r][c] += left * right[c];
    }
  };
  int64_t d = 0;
  for (; d + width <= size; d += width) step([&](const T* row) { return load<T>(row + d); });
  if (d < size) step([&](const T* row) { return load_first<T>(row + d, size - d); });
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) out[r * ldo + c] = sum<T>(total[r][c]);
}

template <class T, int R, int C>
inline void dots_rows(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t m, int64_t size, T* out,
                      int64_t ldo) {
  int64_t j = 0;
  for (; j + C <= m; j += C) dots_tile<T, R, C>(a, lda, b + j * ldb, ldb, size, out + j, ldo);
  for (; j < m; ++j) dots_tile<T, R, 1>(a, lda, b + j * ldb, ldb, size, out + j, ldo);
}

template <class T>
inline void dots(const T* a, int64_t lda, int64_t n, const T* b, int64_t ldb, int64_t m, int64_t size, T* out,
                 int64_t ldo) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) dots_rows<T, 4, 2>(a + i * lda, lda, b, ldb, m, size, out + i * ldo, ldo);
  for (; i < n; ++i) dots_rows<T, 1, 4>(a + i * lda, lda, b, ldb, m, size, out + i * ldo, ldo);
}

template <class T>
inline T dot(const T* a, const T* b, int64_t size) {
  T out;
  dots_tile<T, 1, 1>(a, 0, b, 0, size, &out, 0);
  return out;
}

// R rows by V vectors of the output; when not whole, of the last vector the first `count` lanes.
template <class T, int R, int V, bool whole>
inline void combine_tile(const T* w, int64_t ldw, const T* b, int64_t ldb, int64_t m, T* out, int64_t ldo,
                         bool accumulate, int64_t count = 0) {
  constexpr int64_t width = Vector<T>::width;
  auto read = [&](const T* row) { return whole ? load<T>(row) : load_first<T>(row, count); };
  vec<T> total[R][V] = {};
  if (accumulate)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) total[r][v] = read(out + r * ldo + v * width);
  for (int64_t j = 0; j < m; ++j) {
    vec<T> right[V];
    for (int v = 0; v < V; ++v) right[v] = read(b + j * ldb + v * width);
    for (int r = 0; r < R; ++r) {
      const vec<T> weight = broadcast<T>(w[r * ldw + j]);
      for (int v = 0; v < V; ++v) total[r][v] += weight * right[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      T* to = out + r * ldo + v * width;
      whole ? store<T>(to, total[r][v]) : store_first<T>(to, total[r][v], count);
    }
}

// All rows of a few columns, so that these columns of b stay at hand.
template <class T, int V, bool whole>
inline void combine_columns(const T* w, int64_t ldw, int64_t n, const T* b, int64_t ldb, int64_t m, T* out,
                            int64_t ldo, bool accumulate, int64_t count = 0) {
  int64_t i = 0;
  if constexpr (V <= 2)
    for (; i + 4 <= n; i += 4)
      combine_tile<T, 4, V, whole>(w + i * ldw, ldw, b, ldb, m, out + i * ldo, ldo, accumulate, count);
  for (; i < n; ++i)
    combine_tile<T, 1, V, whole>(w + i * ldw, ldw, b, ldb, m, out + i * ldo, ldo, accumulate, count);
}

template <class T>
inline void combine(const T* w, int64_t ldw, int64_t n, const T* b, int64_t ldb, int64_t m, int64_t size,
                    T* out, int64_t ldo, bool accumulate = false) {
  constexpr int64_t width = Vector<T>::width;
  int64_t d = 0;
  if (n < 4)
    for (; d + 4 * width <= size; d += 4 * width)
      combine_columns<T, 4, true>(w, ldw, n, b + d, ldb, m, out + d, ldo, accumulate);
  for (; d + 2 * width <= size; d += 2 * width)
    combine_columns<T, 2, true>(w, ldw, n, b + d, ldb, m, out + d, ldo, accumulate);
  for (; d + width <= size; d += width)
    combine_columns<T, 1, true>(w, ldw, n, b + d, ldb, m, out + d, ldo, accumulate);
  if (d < size) combine_columns<T, 1, false>(w, ldw, n, b + d, ldb, m, out + d, ldo, accumulate, size - d);
}

template <class T>
inline void transpose(const T* a, int64_t lda, int64_t n, int64_t m, T* out, int64_t ldo) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) out[j * ldo + i] = a[i * lda + j];
}

}  // namespace geokernels::GEOKERNELS_LEVEL
