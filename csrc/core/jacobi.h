// Singular values and vectors of a small matrix by plane rotations of its rows (one-sided Jacobi).
//
//   J A = diag(s) W      J orthogonal, W with orthonormal rows, s descending
//
// Rows hold [A | J] side by side, J the identity on entry: a rotation turns both. A pair is done
// when its cosine is below rounding; a pair with a row below the rounding of the largest is done
// too, since it could not turn the other row visibly. Pairs come in the order of a tournament, so that
// neighbouring rotations touch different rows and overlap in the processor.
//
// Small values keep their absolute accuracy, eps times the largest; no Gram matrix squares them.
// The order of rotations depends on the size alone: the same input gives the same bits.
// NaN ends after kSweeps like everything else.
//
// No include guard: included once for every SIMD level, after core/products.h.

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int kSweeps = 40;  // five to ten suffice; the bound is for NaN

// Turns rows a and b by the angle whose sine and whose half's tangent are given. As corrections to
// the rows, small turns leave small rounding errors, and lengths do not drift.
template <class T>
inline void turn_rows(T* a, T* b, int64_t stride, T sine, T half) {
  for (int64_t k = 0; k < stride; k += Vector<T>::width) {
    const vec<T> first = load<T>(a + k), second = load<T>(b + k);
    store<T>(a + k, first - sine * (second + half * first));
    store<T>(b + k, second + sine * (first - half * second));
  }
}

// One tournament over all pairs; whether any pair still had to be turned.
template <class T>
inline bool sweep_rows(T* a, int64_t rows, int64_t size, int64_t stride, T* squares) {
  const T eps = std::numeric_limits<T>::epsilon();
  const T tolerance = eps;
  T most = 0;
  for (int64_t i = 0; i < rows; ++i) {
    squares[i] = dot(a + i * stride, a + i * stride, size);
    most = squares[i] > most ? squares[i] : most;
  }
  bool turned = false;
  const int64_t players = rows + rows % 2;
  for (int64_t round = 0; round + 1 < players; ++round)
    for (int64_t k = 0; k < players / 2; ++k) {
      const int64_t i = (round + k) % (players - 1);
      const int64_t j = k ? (round + players - 1 - k) % (players - 1) : players - 1;
      if (j >= rows || i >= rows) continue;
      if (std::min(squares[i], squares[j]) <= eps * eps / 4 * most) continue;
      const T inner = dot(a + i * stride, a + j * stride, size);
      if (std::abs(inner) <= tolerance * std::sqrt(squares[i] * squares[j])) continue;
      turned = true;
      const T zeta = (squares[j] - squares[i]) / (2 * inner);
      const T tangent = std::copysign(T(1), zeta) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
      const T cosine = 1 / std::sqrt(1 + tangent * tangent);
      const T sine = cosine * tangent;
      turn_rows(a + i * stride, a + j * stride, stride, sine, sine / (1 + cosine));
      squares[i] -= tangent * inner;
      squares[j] += tangent * inner;
    }
  return turned;
}

// a: [rows, stride], the first `size` (padded) columns A, the others J; values: [rows], written.
template <class T>
inline void orthogonalise_rows(T* a, int64_t rows, int64_t size, int64_t stride, T* values) {
  for (int sweep = 0; sweep < kSweeps; ++sweep)
    if (!sweep_rows(a, rows, size, stride, values)) break;
  for (int64_t i = 0; i < rows; ++i) values[i] = std::sqrt(dot(a + i * stride, a + i * stride, size));
  for (int64_t i = 0; i < rows; ++i) {
    int64_t best = i;
    for (int64_t j = i + 1; j < rows; ++j)
      if (values[j] > values[best]) best = j;
    if (best == i) continue;
    std::swap(values[i], values[best]);
    for (int64_t k = 0; k < stride; ++k) std::swap(a[i * stride + k], a[best * stride + k]);
  }
}

}  // namespace geokernels::GEOKERNELS_LEVEL
