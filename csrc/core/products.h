// Products of matrices of a few dozen rows with many features each.
//
//   dots      out[i, j]  = sum_d a[i, d] b[j, d]
//   combine   out[i, d]  = sum_j w[i, j] b[j, d]      or += with accumulate
//
// Everything is row-major; ld* is the distance between rows. Register tiles of four rows; the
// order of summation depends on the sizes and the vector width alone.
//
// No include guard: included once for every SIMD level, after core/simd.h.

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int64_t kInner = 64;  // rows of b that combine copies at a time

template <class T, int R, int C>
inline void dots_tile(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t size, T* out, int64_t ldo) {
  constexpr int64_t width = Vector<T>::width;
  // a small tile sums in several places at once: one sum would wait for its own last addition
  constexpr int ways = R * C < 8 ? 8 / (R * C) : 1;
  vec<T> partial[ways][R][C] = {};
  auto step = [&](int way, auto read) __attribute__((always_inline)) {
    vec<T> right[C];
    for (int c = 0; c < C; ++c) right[c] = read(b + c * ldb);
    for (int r = 0; r < R; ++r) {
      const vec<T> left = read(a + r * lda);
      for (int c = 0; c < C; ++c) partial[way][r][c] += left * right[c];
    }
  };
  int64_t d = 0;
  for (; d + ways * width <= size; d += ways * width)
    for (int way = 0; way < ways; ++way)
      step(way, [&](const T* row) { return load<T>(row + d + way * width); });
  if constexpr (ways > 1)
    for (; d + width <= size; d += width) step(0, [&](const T* row) { return load<T>(row + d); });
  if (d < size) step(0, [&](const T* row) { return load_first<T>(row + d, size - d); });
  auto& total = partial[0];
  for (int way = 1; way < ways; ++way)
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) total[r][c] += partial[way][r][c];
  if constexpr (R * C == 1) {
    out[0] = sum<T>(total[0][0]);
    return;
  }
  // a vector of sums at a time
  for (int first = 0; first < R * C; first += width) {
    vec<T> part[width] = {};
    for (int i = first; i < R * C && i < first + width; ++i) part[i - first] = total[i / C][i % C];
    const vec<T> sums = sum_each<T>(part);
    for (int i = first; i < R * C && i < first + width; ++i) out[i / C * ldo + i % C] = sums[i - first];
  }
}

template <class T, int R, int C>
inline void dots_rows(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t m, int64_t size, T* out,
                      int64_t ldo) {
  int64_t j = 0;
  // no single column is left over where two pairs can be made
  for (; j + C <= m && j + C + 1 != m; j += C)
    dots_tile<T, R, C>(a, lda, b + j * ldb, ldb, size, out + j, ldo);
  for (; j + 2 <= m; j += 2) dots_tile<T, R, 2>(a, lda, b + j * ldb, ldb, size, out + j, ldo);
  for (; j < m; ++j) dots_tile<T, R, 1>(a, lda, b + j * ldb, ldb, size, out + j, ldo);
}

template <class T>
inline void dots(const T* a, int64_t lda, int64_t n, const T* b, int64_t ldb, int64_t m, int64_t size, T* out,
                 int64_t ldo) {
  // as many sums as there are registers for beside the numbers themselves
  constexpr int columns = GEOKERNELS_REGISTERS < 32 ? 3 : 4;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) dots_rows<T, 4, columns>(a + i * lda, lda, b, ldb, m, size, out + i * ldo, ldo);
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

// All rows of a few columns. They are copied side by side first: rows a power of two apart would fall into
// the same few sets of the cache, and evict each other.
template <class T, int V, bool whole>
inline void combine_columns(const T* w, int64_t ldw, int64_t n, const T* b, int64_t ldb, int64_t m, T* out,
                            int64_t ldo, bool accumulate, int64_t count = 0) {
  constexpr int64_t width = Vector<T>::width;
  T near[kInner * V * width];
  if (n > 4) {
    for (int64_t j = 0; j < m; ++j)
      for (int64_t v = 0; v < V; ++v) {
        const T* from = b + j * ldb + v * width;
        store<T>(near + (j * V + v) * width, whole ? load<T>(from) : load_first<T>(from, count));
      }
    b = near;
    ldb = V * width;
  }
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
  for (int64_t j = 0; j == 0 || j < m; j += kInner) {
    const int64_t inner = std::min(m - j, kInner);
    const bool more = accumulate || j > 0;
    const T* from = b + j * ldb;
    int64_t d = 0;
    if (n < 4)
      for (; d + 4 * width <= size; d += 4 * width)
        combine_columns<T, 4, true>(w + j, ldw, n, from + d, ldb, inner, out + d, ldo, more);
    for (; d + 2 * width <= size; d += 2 * width)
      combine_columns<T, 2, true>(w + j, ldw, n, from + d, ldb, inner, out + d, ldo, more);
    for (; d + width <= size; d += width)
      combine_columns<T, 1, true>(w + j, ldw, n, from + d, ldb, inner, out + d, ldo, more);
    if (d < size)
      combine_columns<T, 1, false>(w + j, ldw, n, from + d, ldb, inner, out + d, ldo, more, size - d);
  }
}

template <class T>
inline void transpose(const T* a, int64_t lda, int64_t n, int64_t m, T* out, int64_t ldo) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) out[j * ldo + i] = a[i * lda + j];
}

}  // namespace geokernels::GEOKERNELS_LEVEL
