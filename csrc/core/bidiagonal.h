// Singular values and vectors of a matrix that is too large for rotations of its rows (core/jacobi.h).
//
//   A = U^T diag(s) V      rows of U and V orthonormal, s descending
//
// a            [m, lda]    m >= n; numbers of a row beyond its n are zero; destroyed
// left, right  [n, m], [n, n]   u_i and v_i as rows
//
// Reflections from both sides leave two diagonals (Golub and Kahan 1965), whose values come by QR steps with
// implicit shifts (Golub and Reinsch 1970; without a shift where a value is zero, Demmel and Kahan 1990).
// What a step costs by itself grows with n alone; its rotations are kept, and turn the vectors many steps at
// a time, a few columns after the other, which stay in the first cache. Reflections are applied sixteen at a
// time.
//
// Errors are a few roundings of the largest value. The diagonals are float64. The order of operations depends
// on the numbers, their count and the vector width alone. Where anything is NaN or infinite, all values are
// NaN.
//
// No include guard: included once for every SIMD level, after core/products.h.

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int64_t kReflections = 16;  // applied at once
constexpr int64_t kKept = 32;         // QR steps whose rotations are applied at once

template <class T>
struct BidiagonalRoom {
  int64_t m, n, ldl, ldr;  // ldl, ldr: from one row to the next of left and right
  T *left, *right;
  T *from_left, *from_right;    // [n, ldl], [n, ldr]   the reflections, I - h h^T each
  T* image;                     // [m]
  T *along, *next;              // [ldr]
  T *products, *factors;        // [2, n, kReflections], [2, kReflections, kReflections]
  T *turns_left, *turns_right;  // [kKept, n, 2]   cosine and sine
  double *diagonal, *beside;    // [n]
  int64_t* steps;               // [kKept, 2]   the first and last row of a step
  int64_t* order;               // [n]

  BidiagonalRoom(Workspace<T>& from, int64_t m, int64_t n)
      : m(m), n(n), ldl(spread<T>(m)), ldr(spread<T>(n)) {
    left = from.take(n * ldl);
    right = from.take(n * ldr);
    from_left = from.take(n * ldl);
    from_right = from.take(n * ldr);
    image = from.take(m);
    along = from.take(ldr);
    next = from.take(ldr);
    products = from.take(2 * n * kReflections);
    factors = from.take(2 * kReflections * kReflections);
    turns_left = from.take(2 * kKept * n);
    turns_right = from.take(2 * kKept * n);
    diagonal = from.template take_as<double>(n);
    beside = from.template take_as<double>(n);
    steps = from.template take_as<int64_t>(2 * kKept);
    order = from.template take_as<int64_t>(n);
  }
};

// x becomes h with (I - h h^T) x = (first, 0, ..., 0); returns first.
template <class T>
inline T reflect(T* x, int64_t size) {
  const T square = dot(x, x, size), length = std::sqrt(square);
  if (square <= std::numeric_limits<T>::min()) {
    std::fill_n(x, size, T(0));
    return 0;
  }
  const T first = x[0] < 0 ? length : -length, scale = 1 / std::sqrt(length * (length + std::fabs(x[0])));
  x[0] -= first;
  for (int64_t i = 0; i < size; ++i) x[i] *= scale;
  return first;
}

// Of R rows: a -= u z^T + w v^T, out += h^T a.
template <class T, int R>
inline void reduce_few(T* a, int64_t lda, int64_t size, const T* u, const T* z, const T* w, const T* v,
                       const T* h, T* out) {
  for (int64_t j = 0; j < size; j += Vector<T>::width) {
    const vec<T> by_u = load<T>(z + j), by_w = load<T>(v + j);
    vec<T> sum = load<T>(out + j);
    for (int r = 0; r < R; ++r) {
      const vec<T> left = load<T>(a + r * lda + j) - u[r] * by_u - w[r] * by_w;
      store<T>(a + r * lda + j, left);
      sum += h[r] * left;
    }
    store<T>(out + j, sum);
  }
}

// The same of all rows, out = h^T a; sizes are whole vectors.
template <class T>
inline void reduce(T* a, int64_t lda, int64_t rows, int64_t size, const T* u, const T* z, const T* w,
                   const T* v, const T* h, T* out) {
  std::fill_n(out, size, T(0));
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) reduce_few<T, 4>(a + i * lda, lda, size, u + i, z, w + i, v, h + i, out);
  for (; i < rows; ++i) reduce_few<T, 1>(a + i * lda, lda, size, u + i, z, w + i, v, h + i, out);
}

// Reflections from both sides, and the two diagonals that they leave.
template <class T>
inline void reflect_both_sides(T* a, int64_t lda, const BidiagonalRoom<T>& at) {
  const int64_t m = at.m, n = at.n, whole = round_up(n, Vector<T>::width);
  T *z = at.along, *next = at.next, *const w = at.image;
  const T *u = w, *v = z;  // of the step before: nothing yet
  std::fill_n(z, at.ldr, T(0));
  std::fill_n(w, m, T(0));
  std::fill_n(at.from_left, n * at.ldl, T(0));
  std::fill_n(at.from_right, n * at.ldr, T(0));
  for (int64_t k = 0; k < n; ++k) {
    T* const h = at.from_left + k * at.ldl;
    for (int64_t i = k; i < m; ++i) h[i] = a[i * lda + k] - u[i] * z[k] - w[i] * v[k];
    at.diagonal[k] = reflect(h + k, m - k);
    // from a whole vector on; what stands before column k is not looked at again
    const int64_t begin = k / Vector<T>::width * Vector<T>::width;
    reduce(a + k * lda + begin, lda, m - k, whole - begin, u + k, z + begin, w + k, v + begin, h + k,
           next + begin);
    std::fill(next + begin, next + k + 1, T(0));
    std::swap(z, next);
    if (k + 1 == n) break;

    T* const g = at.from_right + k * at.ldr;
    for (int64_t j = k + 1; j < n; ++j) g[j] = a[k * lda + j] - h[k] * z[j];
    at.beside[k] = reflect(g + k + 1, n - k - 1);
    const int64_t rows = m - k - 1;
    dots(a + (k + 1) * lda + begin, lda, rows, g + begin, at.ldr, 1, whole - begin, w + k + 1, 1);
    const T both = dot(z + begin, g + begin, whole - begin);
    for (int64_t i = k + 1; i < m; ++i) w[i] -= h[i] * both;
    u = h;
    v = g;
  }
}

// rows [n, ld]: row j is what the reflections [count, ld], the first of them last, make of unit vector j. The
// reflection k leaves alone what is before number k + shift.
template <class T>
inline void accumulate(const T* reflections, int64_t count, int64_t ld, int64_t shift, T* rows,
                       const BidiagonalRoom<T>& at) {
  std::fill_n(rows, at.n * ld, T(0));
  for (int64_t j = 0; j < at.n; ++j) rows[j * ld + j] = 1;
  constexpr int64_t most = kReflections;
  T *const inner = at.factors, *const turned = inner + most * most;
  for (int64_t k = (count - 1) / most * most; count > 0 && k >= 0; k -= most) {
    // H_0 H_1 ... = I - Y T Y^T with T upper triangular
    const int64_t b = std::min(most, count - k), begin = padded<T>(k + 1) - padded<T>(1), size = ld - begin;
    const T* const y = reflections + k * ld + begin;
    dots(y, ld, b, y, ld, b, size, inner, b);
    // -T^T, row by row: no sum along a row, which one compiler adds up with FMA and another without
    std::fill_n(turned, b * b, T(0));
    for (int64_t j = 0; j < b; ++j) {
      T* const row = turned + j * b;
      for (int64_t l = 0; l < j; ++l) {
        const T factor = inner[l * b + j];
        for (int64_t i = 0; i <= l; ++i) row[i] -= factor * turned[l * b + i];
      }
      row[j] = -1;
    }
    const int64_t first = k + shift, n = at.n - first;
    if (n <= 0) continue;
    T* const to = rows + first * ld + begin;
    T* const factors = at.products + at.n * most;
    dots(to, ld, n, y, ld, b, size, at.products, b);
    combine(at.products, b, n, turned, b, b, b, factors, b);
    combine(factors, b, n, y, ld, b, size, to, ld, true);
  }
}

// The rotations of several steps, on V vectors of all rows.
template <class T, int V>
inline void turn_columns(T* rows, int64_t ld, const int64_t* steps, int64_t count, const T* turns,
                         int64_t n) {
  constexpr int64_t width = Vector<T>::width;
  for (int64_t step = 0; step < count; ++step) {
    const int64_t first = steps[2 * step], last = steps[2 * step + 1];
    const T* by = turns + 2 * n * step + 2 * first;
    vec<T> carried[V];
    for (int v = 0; v < V; ++v) carried[v] = load<T>(rows + first * ld + v * width);
    for (int64_t i = first; i < last; ++i, by += 2) {
      const vec<T> cosine = broadcast<T>(by[0]), sine = broadcast<T>(by[1]);
      for (int v = 0; v < V; ++v) {
        const vec<T> below = load<T>(rows + (i + 1) * ld + v * width);
        store<T>(rows + i * ld + v * width, cosine * carried[v] + sine * below);
        carried[v] = cosine * below - sine * carried[v];
      }
    }
    for (int v = 0; v < V; ++v) store<T>(rows + last * ld + v * width, carried[v]);
  }
}

template <class T>
inline void turn_rows(T* rows, int64_t ld, const int64_t* steps, int64_t count, const T* turns, int64_t n) {
  constexpr int64_t line = kCacheLine / sizeof(T), width = Vector<T>::width;
  int64_t d = 0;
  for (; d + 2 * line <= ld; d += 2 * line)
    turn_columns<T, 2 * line / width>(rows + d, ld, steps, count, turns, n);
  for (; d < ld; d += line) turn_columns<T, line / width>(rows + d, ld, steps, count, turns, n);
}

// The rotation that turns (f, g) to (length, 0).
struct PlaneTurn {
  double cosine = 1, sine = 0, length;

  PlaneTurn(double f, double g) : length(std::sqrt(f * f + g * g)) {
    if (length == 0) return;
    const double inverse = 1 / length;
    cosine = f * inverse;
    sine = g * inverse;
  }
};

// One QR step on the rows from `first` to `last`; keeps its rotations.
template <class T>
inline void qr_step(double* d, double* e, int64_t first, int64_t last, double f, double g, T* left,
                    T* right) {
  for (int64_t i = first; i < last; ++i) {
    const PlaneTurn columns(f, g);
    if (i > first) e[i - 1] = columns.length;
    f = columns.cosine * d[i] + columns.sine * e[i];
    e[i] = columns.cosine * e[i] - columns.sine * d[i];
    g = columns.sine * d[i + 1];
    d[i + 1] *= columns.cosine;
    const PlaneTurn rows(f, g);
    d[i] = rows.length;
    f = rows.cosine * e[i] + rows.sine * d[i + 1];
    d[i + 1] = rows.cosine * d[i + 1] - rows.sine * e[i];
    if (i + 1 < last) {
      g = rows.sine * e[i + 1];
      e[i + 1] *= rows.cosine;
    }
    left[2 * i] = T(rows.cosine);
    left[2 * i + 1] = T(rows.sine);
    right[2 * i] = T(columns.cosine);
    right[2 * i + 1] = T(columns.sine);
  }
  e[last - 1] = f;
}

// What the shift of a step makes of its first rotation: the eigenvalue of the last two rows of B^T B that is
// closer to the last.
inline void start_of_step(const double* d, const double* e, int64_t first, int64_t last, bool shifted,
                          double& f, double& g) {
  const double before = last - 1 > first ? e[last - 2] : 0;
  const double upper = d[last - 1] * d[last - 1] + before * before,
               lower = d[last] * d[last] + e[last - 1] * e[last - 1];
  const double cross = d[last - 1] * e[last - 1], half = (upper - lower) / 2;
  const double root = std::sqrt(half * half + cross * cross), steep = half < 0 ? half - root : half + root;
  const double shift = shifted && steep != 0 ? lower - cross * cross / steep : 0;
  f = shifted ? d[first] * d[first] - shift : d[first];
  g = shifted ? d[first] * e[first] : e[first];
}

// QR steps until nothing is left beside the diagonal; false where that does not end.
template <class T, class Turn>
inline bool diagonalise(const BidiagonalRoom<T>& at, const Turn& turn) {
  double *const d = at.diagonal, *const e = at.beside;
  double largest = 0, sum = 0;
  for (int64_t i = 0; i < at.n; ++i) {
    const double next = i + 1 < at.n ? std::fabs(e[i]) : 0;
    largest = std::max({largest, std::fabs(d[i]), next});
    sum += std::fabs(d[i]) + next;
  }
  if (!std::isfinite(sum)) return false;
  // a quarter of the rounding of its neighbours is nothing, so that small values keep digits of their own
  constexpr double rounding = std::numeric_limits<double>::epsilon();
  const double least = rounding * rounding * largest;
  auto is_nothing = [&](int64_t i) {
    const double neighbours = std::fabs(d[i]) + std::fabs(d[i + 1]);
    return std::fabs(e[i]) <= std::max(std::numeric_limits<T>::epsilon() / 4 * neighbours, least);
  };
  int64_t kept = 0, last = at.n - 1;
  for (int64_t step = 0; last > 0; ++step) {
    if (step > 30 * at.n) return false;
    if (is_nothing(last - 1)) {
      --last;
      continue;
    }
    int64_t first = last - 1;
    bool singular = std::fabs(d[last]) <= least || std::fabs(d[first]) <= least;
    for (; first > 0 && !is_nothing(first - 1); --first) singular |= std::fabs(d[first - 1]) <= least;
    double f, g;
    start_of_step(d, e, first, last, !singular, f, g);
    at.steps[2 * kept] = first;
    at.steps[2 * kept + 1] = last;
    qr_step(d, e, first, last, f, g, at.turns_left + 2 * at.n * kept, at.turns_right + 2 * at.n * kept);
    if (++kept == kKept) turn(kept), kept = 0;
  }
  turn(kept);
  return true;
}

// a: [m, lda], destroyed. values [n]; row order[i] of at.left and, where it is wanted, at.right belongs to
// values[i].
template <class T>
inline void decompose_large(T* a, int64_t lda, const BidiagonalRoom<T>& at, bool with_right, T* values) {
  const int64_t n = at.n;
  reflect_both_sides(a, lda, at);
  accumulate(at.from_left, n, at.ldl, 0, at.left, at);
  if (with_right) accumulate(at.from_right, n - 1, at.ldr, 1, at.right, at);
  const bool done = diagonalise(at, [&](int64_t kept) {
    turn_rows(at.left, at.ldl, at.steps, kept, at.turns_left, n);
    if (with_right) turn_rows(at.right, at.ldr, at.steps, kept, at.turns_right, n);
  });
  for (int64_t i = 0; i < n; ++i) {
    const double value = done ? at.diagonal[i] : std::numeric_limits<double>::quiet_NaN();
    if (value < 0)
      for (int64_t k = 0; k < at.m; ++k) at.left[i * at.ldl + k] = -at.left[i * at.ldl + k];
    int64_t place = i;
    for (; place > 0 && values[place - 1] < T(std::fabs(value)); --place) {
      values[place] = values[place - 1];
      at.order[place] = at.order[place - 1];
    }
    values[place] = T(std::fabs(value));
    at.order[place] = i;
  }
}

}  // namespace geokernels::GEOKERNELS_LEVEL
