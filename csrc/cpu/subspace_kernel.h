// Leading directions of feature rows, and their gradient, for one problem.
//
//   x = sum_i s_i u_i b_i^T      s descending; b_i the directions, u_i the left vectors
//
// x           [N, D]   finite
// left        [R, N]   u_i as rows, R = min(N, D)
// directions  [R, D]   b_i as rows, largest component positive; zero where s_i <= rtol * s_0
// values      [R]      s_i
//
// Rows are orthonormalised a few at a time (Gram-Schmidt, repeated until nothing cancels), which
// leaves the triangular coefficients of x in an orthonormal Q: x^T = Q^T R. Rows that depend on earlier ones
// add no row to Q. Plane rotations then turn the rows of R into s_i u_i^T, and the same rotations turn Q into
// the directions; more than kTurned of them are decomposed by way of two diagonals (core/bidiagonal.h).
//
// Where no value is much smaller than the largest, R is the Cholesky factor of the Gram matrix of x, and the
// directions come from the rows of x themselves: half the products, and no Q. The Gram matrix squares the
// condition, which is known once the values are; that of other rows is not used.
//
// One thread a problem; problems share nothing. x is scaled by a power of two where squares could overflow or
// vanish. Errors are those of a Householder QR and a Jacobi SVD: eps times the largest value. NaN and
// infinities reach the values. The order of every sum depends on the numbers of x, N, D and the vector width.
//
// After core/products.h, core/jacobi.h and core/bidiagonal.h.

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int64_t kTogether = 4;  // rows multiplied together

// Rows orthonormalised together: more where the rows before them do not stay in a cache.
constexpr int64_t together_of(int64_t rows) { return rows > kTurned ? 16 : kTogether; }

// Singular values so many times apart have squares whose ratio, 16, is what the Gram matrix multiplies
// rounding by: no more than what a decomposition of the rows themselves leaves of it.
constexpr int kAlike = 4;
constexpr int kModerate = 24;  // powers of two between which rows are squared as they are

// The largest of x and the largest of -x, both at least 0.
template <class T>
struct Extremes {
  T high, low;

  Extremes(const T* x, int64_t size) {
    vec<T> up = {}, down = {};
    int64_t d = 0;
    auto step = [&](vec<T> v) {
      up = max<T>(up, v);
      down = max<T>(down, -v);
    };
    for (; d + Vector<T>::width <= size; d += Vector<T>::width) step(load<T>(x + d));
    if (d < size) step(load_first<T>(x + d, size - d));
    high = largest<T>(up);
    low = largest<T>(down);
  }
};

template <class T>
inline void scale_row(const T* x, int64_t size, T factor, T* out) {
  for (int64_t d = 0; d < size; ++d) out[d] = x[d] * factor;
}

// Takes from n rows what lies along the first `count` rows of q, and adds the coefficients to n lines of r.
template <class T>
inline void remove_known(T* rows, int64_t n, const T* q, int64_t count, int64_t stride, T* r, int64_t ldr,
                         T* known) {
  if (count == 0) return;
  dots(rows, stride, n, q, stride, count, stride, known, count);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < count; ++k) {
      r[i * ldr + k] += known[i * count + k];
      known[i * count + k] = -known[i * count + k];
    }
  combine(known, count, n, q, stride, count, stride, rows, stride, true);
}

template <class T>
inline T length_of(const T* row, int64_t size) {
  return std::sqrt(dot(row, row, size));
}

// Makes a row of length `whole`, from which the first `before` rows of q are gone already, orthogonal to
// all `count` of them; returns the length that is left, or 0 where only rounding is.
template <class T>
inline T make_orthogonal(T* row, T whole, const T* q, int64_t before, int64_t count, int64_t stride, T* r,
                         int64_t ldr, T* known) {
  remove_known(row, 1, q + before * stride, count - before, stride, r + before, ldr, known);
  T last = whole, left = count ? length_of(row, stride) : whole;
  // a length that halves has cancelled: what is left is orthogonal only after another round
  for (int pass = 0; pass < 3 && count > 0 && !(left > last / 2); ++pass) {
    remove_known(row, 1, q, count, stride, r, ldr, known);
    last = left;
    left = length_of(row, stride);
  }
  const bool noise = std::isfinite(whole) && left <= std::numeric_limits<T>::epsilon() * whole;
  return noise ? T(0) : left;
}

// x to orthonormal rows q [count, spread D] and coefficients r [N, ldr], a line for every row of x, zero on
// entry; returns count. Rows come several at a time: products of several rows are the faster ones.
template <class T>
inline int64_t orthonormalise(const T* x, int64_t N, int64_t D, T factor, T* q, T* r, int64_t ldr, T* known) {
  const int64_t stride = spread<T>(D), R = std::min(N, D), together = together_of(N);
  int64_t count = 0;
  for (int64_t first = 0; first < N; first += together) {
    const int64_t before = count, n = std::min(together, N - first);
    T* const block = q + before * stride;
    T whole[together_of(kTurned + 1)];
    for (int64_t i = 0; i < n; ++i) {
      scale_row(x + (first + i) * D, D, factor, block + i * stride);
      for (int64_t d = D; d < stride; ++d) block[i * stride + d] = 0;
      whole[i] = length_of(block + i * stride, stride);
    }
    remove_known(block, n, q, before, stride, r + first * ldr, ldr, known);
    for (int64_t i = 0; i < n; ++i) {
      T* const row = block + i * stride;
      T* const line = r + (first + i) * ldr;
      const T length = make_orthogonal(row, whole[i], q, before, count, stride, line, ldr, known);
      if (length == 0 || count == R) continue;
      line[count] = length;
      scale_row(row, stride, 1 / length, q + count * stride);
      ++count;
    }
  }
  return count;
}

template <class T>
struct BasisRoom {
  T* q;                // [R + together_of(N), spread D]
  T* lanes;            // [N + R, seats], of more than kTurned directions [N, seats]
  T* spare;            // [2, seats]
  T* lengths;          // [R]
  T* rotation;         // [R, R]
  T* known;            // [together_of(N), R]
  int64_t* order;      // [R]
  Workspace<T> large;  // for a BidiagonalRoom of more than kTurned directions

  BasisRoom(Workspace<T>& from, int64_t N, int64_t D) {
    const int64_t R = std::min(N, D), seats = most_seats<T>(R);
    const bool turned = R <= kTurned;
    q = from.take((R + together_of(N)) * spread<T>(D));
    lanes = from.take((turned ? N + R : N) * seats);
    spare = from.take(2 * seats);
    lengths = from.take(R);
    rotation = from.take(R * R);
    known = from.take(together_of(N) * R);
    order = from.template take_as<int64_t>(R);
    large = from.part(turned ? 0 : room_for<BidiagonalRoom, T>(N, R));
  }
};

// What a matrix is made of: the power of two above its numbers.
template <class T>
inline int exponent_of(const T* x, int64_t size) {
  const Extremes<T> extremes(x, size);
  int exponent = 0;
  std::frexp(std::max(extremes.high, extremes.low), &exponent);
  return std::max(exponent, std::numeric_limits<T>::min_exponent);
}

// l [N, ldr], lower: the Cholesky factor of the Gram matrix of x, a line for every row; gram [N, N] spare.
// False where its squares would cost digits: for more than kAlike between the longest and the shortest; and
// where they may overflow or vanish.
template <class T>
inline bool factorise(const T* x, int64_t N, int64_t D, T* gram, T* l, int64_t ldr) {
  for (int64_t i = 0; i < N; i += kTogether) {
    const int64_t n = std::min(kTogether, N - i);
    dots(x + i * D, D, n, x, D, i + n, D, gram + i * N, N);
  }
  T longest = 0;
  for (int64_t i = 0; i < N; ++i) longest = std::max(longest, gram[i * N + i]);
  constexpr T far = T(1LL << (2 * kModerate));
  if (!(longest < far && longest * far > 1)) return false;
  for (int64_t j = 0; j < N; ++j) {
    const T square = gram[j * N + j];
    if (!(square * kAlike * kAlike > longest)) return false;
    const T inverse = 1 / std::sqrt(square);
    for (int64_t i = j; i < N; ++i) l[i * ldr + j] = gram[i * N + j] * inverse;
    // the column once more, side by side
    T* const column = gram;
    for (int64_t i = j + 1; i < N; ++i) column[i] = l[i * ldr + j];
    for (int64_t i = j + 1; i < N; ++i) {
      const T factor = column[i];
      T* const line = gram + i * N;
      for (int64_t k = j + 1; k <= i; ++k) line[k] -= factor * column[k];
    }
  }
  return true;
}

// Singular vectors of the rows of coefficients in room.lanes, [N, count]: left [count, N] as rows, or null;
// where it is wanted, right [count, ldr] as well.
template <class T>
inline void decompose_lanes(const BasisRoom<T>& room, bool turned, int64_t N, int64_t count, int64_t seats,
                            T* left, T* right, int64_t ldr, T* values) {
  if (!turned) {
    Workspace<T> memory = room.large;
    const BidiagonalRoom<T> at(memory, N, count);
    decompose_large(room.lanes, seats, at, right != nullptr, values);
    for (int64_t i = 0; i < count; ++i) {
      if (left) std::copy_n(at.left + at.order[i] * at.ldl, N, left + i * N);
      if (right) std::copy_n(at.right + at.order[i] * at.ldr, count, right + i * ldr);
    }
    return;
  }
  for (int64_t i = 0; right && i < count; ++i) room.lanes[(N + i) * seats + i] = 1;
  orthogonalise(room.lanes, seats, count, N, right ? N + count : N, room.spare, values, room.order);
  if (right) gather_rows(room.lanes, seats, count, room.order, N, count, right, ldr);
  for (int64_t i = 0; left && i < count; ++i) {
    const T unit = values[i] > 0 ? 1 / values[i] : T(0);
    for (int64_t n = 0; n < N; ++n) left[i * N + n] = room.lanes[n * seats + room.order[i]] * unit;
  }
}

// Directions from the rows of x themselves, by way of their Gram matrix; false for rows of which the shortest
// direction is much shorter than the longest.
template <class T>
inline bool alike_basis(const T* x, int64_t N, int64_t D, const BasisRoom<T>& room, T* left, T* directions,
                        T* values) {
  const int64_t seats = seats_for<T>(N);
  T* const weights = room.rotation;
  std::fill_n(room.lanes, N * seats, T(0));
  if (!factorise(x, N, D, weights, room.lanes, seats)) return false;
  decompose_lanes<T>(room, N <= kTurned, N, N, seats, weights, nullptr, 0, values);
  if (!(values[N - 1] * kAlike > values[0])) return false;
  if (left) std::copy_n(weights, N * N, left);
  for (int64_t i = 0; i < N; ++i) scale_row(weights + i * N, N, 1 / values[i], weights + i * N);
  combine(weights, N, N, x, D, N, D, directions, D);
  return true;
}

// The same by way of orthonormal rows, for any x.
template <class T>
inline void any_basis(const T* x, int64_t N, int64_t D, double rtol, const BasisRoom<T>& room, T* left,
                      T* directions, T* values) {
  // squares of these neither overflow nor vanish
  const int exponent = exponent_of(x, N * D);
  const int64_t R = std::min(N, D), stride = spread<T>(D), seats = seats_for<T>(R);
  std::fill_n(room.lanes, (R > kTurned ? N : N + R) * seats, T(0));
  const int64_t count =
      orthonormalise(x, N, D, std::ldexp(T(1), -exponent), room.q, room.lanes, seats, room.known);
  decompose_lanes(room, R <= kTurned, N, count, seats, left, room.rotation, R, room.lengths);
  combine(room.rotation, R, count, room.q, stride, count, D, directions, D);
  for (int64_t i = 0; i < R; ++i) {
    const T length = i < count ? room.lengths[i] : T(0);
    values[i] = std::ldexp(length, exponent);
    if (i >= count || length <= T(rtol) * room.lengths[0]) std::fill_n(directions + i * D, D, T(0));
    if (left && i >= count) std::fill_n(left + i * N, N, T(0));
  }
}

// left may be null. work: for a BasisRoom of N and D.
template <class T>
void basis_problem(const T* x, int64_t N, int64_t D, double rtol, T* left, T* directions, T* values,
                   Workspace<T> work) {
  const BasisRoom<T> room(work, N, D);
  const bool moderate = N > 0 && N <= D && rtol * kAlike < 1;
  if (!moderate || !alike_basis(x, N, D, room, left, directions, values))
    any_basis(x, N, D, rtol, room, left, directions, values);
  for (int64_t i = 0; i < std::min(N, D); ++i) {
    T* const direction = directions + i * D;
    const Extremes<T> of(direction, D);
    if (of.low <= of.high) continue;
    scale_row(direction, D, T(-1), direction);
    if (left) scale_row(left + i * N, N, T(-1), left + i * N);
  }
}

template <class T>
struct BasisBackwardRoom {
  T* seen;          // [R, R]  direction j in the gradient to direction i
  T* along;         // [R, R]
  T* by_gradient;   // [N, R]
  T* by_direction;  // [N, R]
  T* inverse;       // [R]   1 / s_i, 0 for what is not kept

  BasisBackwardRoom(Workspace<T>& from, int64_t N, int64_t D) {
    const int64_t R = std::min(N, D);
    seen = from.take(R * R);
    along = from.take(R * R);
    by_gradient = from.take(N * R);
    by_direction = from.take(N * R);
    inverse = from.take(R);
  }
};

// grad_x [N, D] = sum_i u_i (grad_i / s_i + sum_j along[i, j] b_j)^T, as derived in
// geokernels/reference/subspace.py; the first `rank` directions are kept.
// grad_values may be null, for zero. With accumulate, what is in grad_x counts too.
// work: for a BasisBackwardRoom of N and D.
template <class T>
void basis_backward_problem(const T* grad_directions, const T* grad_values, const T* left,
                            const T* directions, const T* values, int64_t N, int64_t D, int64_t rank,
                            T* grad_x, Workspace<T> work, bool accumulate = false) {
  const int64_t R = std::min(N, D);
  const auto [seen, along, by_gradient, by_direction, inverse] = BasisBackwardRoom<T>(work, N, D);

  dots(directions, D, R, grad_directions, D, R, D, seen, R);
  for (int64_t i = 0; i < R; ++i) {
    const Extremes<T> of(directions + i * D, D);
    inverse[i] = i < rank && (of.high > 0 || of.low > 0) ? 1 / values[i] : T(0);
  }
  const T closed = 8 * std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < R; ++i)
    for (int64_t j = 0; j < R; ++j) {
      T turn = 0;
      const int64_t kept = std::min(i, j), dropped = std::max(i, j);
      const T gap = (values[kept] - values[dropped]) * (values[kept] + values[dropped]);
      if (inverse[kept] > 0 && dropped >= rank && gap > closed * values[kept] * values[kept])
        turn = values[i] * seen[dropped * R + kept] / gap;
      along[i * R + j] =
          turn - seen[j * R + i] * inverse[i] + (i == j && grad_values ? grad_values[i] : T(0));
    }
  for (int64_t n = 0; n < N; ++n)
    for (int64_t i = 0; i < R; ++i) by_gradient[n * R + i] = left[i * N + n];
  combine(by_gradient, R, N, along, R, R, R, by_direction, R);
  for (int64_t n = 0; n < N; ++n)
    for (int64_t i = 0; i < R; ++i) by_gradient[n * R + i] *= inverse[i];
  combine(by_direction, R, N, directions, D, R, D, grad_x, D, accumulate);
  combine(by_gradient, R, N, grad_directions, D, R, D, grad_x, D, true);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
