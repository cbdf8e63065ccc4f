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

// Pairs of different rows, turned together: their square roots and quotients overlap.
template <class T>
struct Pairs {
  static constexpr int64_t most = 16;
  int64_t count = 0, first[most], second[most];
  T inner[most], square_i[most], square_j[most], tangent[most], sine[most], half[most];

  void add(const T* a, int64_t i, int64_t j, int64_t size, int64_t stride, const T* squares) {
    first[count] = i;
    second[count] = j;
    square_i[count] = squares[i];
    square_j[count] = squares[j];
    inner[count++] = dot(a + i * stride, a + j * stride, size);
  }

  // The turn that makes each pair orthogonal; tangent 0 where it is done.
  void solve(T tolerance, T floor) {
    for (int64_t k = 0; k < count; ++k) {
      const T zeta = (square_j[k] - square_i[k]) / (2 * inner[k]);
      const T steep = std::copysign(T(1), zeta) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
      const bool small = (square_i[k] < square_j[k] ? square_i[k] : square_j[k]) <= floor;
      const bool orthogonal = std::abs(inner[k]) <= tolerance * std::sqrt(square_i[k] * square_j[k]);
      tangent[k] = small | orthogonal ? T(0) : steep;
      const T cosine = 1 / std::sqrt(1 + tangent[k] * tangent[k]);
      sine[k] = cosine * tangent[k];
      half[k] = sine[k] / (1 + cosine);
    }
  }

  // Whether any pair was turned.
  bool turn(T* a, int64_t stride, T* squares) {
    bool turned = false;
    for (int64_t k = 0; k < count; ++k) {
      if (tangent[k] == 0) continue;
      turned = true;
      turn_rows(a + first[k] * stride, a + second[k] * stride, stride, sine[k], half[k]);
      squares[first[k]] -= tangent[k] * inner[k];
      squares[second[k]] += tangent[k] * inner[k];
    }
    count = 0;
    return turned;
  }
};

// One tournament over all pairs; whether any pair still had to be turned.
template <class T>
inline bool sweep_rows(T* a, int64_t rows, int64_t size, int64_t stride, T* squares) {
  const T eps = std::numeric_limits<T>::epsilon();
  T largest = 0;
  for (int64_t i = 0; i < rows; ++i) {
    squares[i] = dot(a + i * stride, a + i * stride, size);
    largest = squares[i] > largest ? squares[i] : largest;
  }
  const T floor = eps * eps / 4 * largest;
  bool turned = false;
  Pairs<T> pairs;
  const int64_t players = rows + rows % 2;
  for (int64_t round = 0; round + 1 < players; ++round)
    for (int64_t k = 0; k < players / 2; ++k) {
      const int64_t i = (round + k) % (players - 1);
      const int64_t j = k ? (round + players - 1 - k) % (players - 1) : players - 1;
      if (i < rows && j < rows) pairs.add(a, i, j, size, stride, squares);
      if (pairs.count < Pairs<T>::most && k + 1 < players / 2) continue;
      pairs.solve(eps, floor);
      turned |= pairs.turn(a, stride, squares);
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
