// Singular values and vectors of a small matrix by plane rotations of its rows (one-sided Jacobi).
//
//   J A = diag(s) W      J orthogonal, W with orthonormal rows, s descending
//
// lanes  [lines, seats]         column by column: first the `size` columns of A; then, where J is wanted, J,
// the
//                               identity on entry; lane r of every line belongs to row r; the other lanes are
//                               zero and stay zero.
//                               seats is at least seats_for<T>(rows).
//
// One vector is a block of rows, and two blocks turn all their lanes at once, each against its opposite:
// a rotation is four multiply-adds a line, with no sum across lanes. Between rounds the lower block
// moves on by one lane, so that after as many rounds as lanes every row has met every row of the other
// block. Rows of one block meet when the halves of two blocks have changed places, then the quarters, and
// so on. A sweep lets each pair of rows meet once; afterwards rows may be in other lanes than before.
//
// The turns themselves, which pairs are left alone, and when sweeps end, are core/rotation.h. The GPU's
// kernels share only that: there the lanes of a warp run along two rows, while here every lane is a row.
//
// Small values keep their absolute accuracy, eps times the largest; no Gram matrix squares them. The order of
// operations depends on sizes and the vector width alone: the same input gives the same bits.
// With NaN the loop ends after kSweeps, and NaN spreads over the lanes: which of these belong to rows is kept
// in marks, which move with the rows and are never computed with.
//
// No include guard: included once for every SIMD level, after core/simd.h.

#include "core/rotation.h"

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int64_t kTurned = 32;  // rows up to which rotations are faster than core/bidiagonal.h

// Lanes for so many rows: whole pairs of blocks.
template <class T>
constexpr int64_t seats_for(int64_t rows) {
  return round_up(rows, 2 * Vector<T>::width);
}

// The state of one sweep.
template <class T>
struct Sweep {
  T* lanes;
  int64_t size, lines, seats;
  T* squares;  // [seats]   squared lengths of the rows
  T* marks;    // [seats]   1 where there is a row, 0 elsewhere
  Invisible<T> invisible;
  typename Vector<T>::mask unsettled = {};
};

// All lanes of two blocks against their opposites, `Group` rounds; the lower block moves within groups.
template <class T, int Group>
inline void meet(Sweep<T>& sweep, int64_t upper, int64_t lower) {
  T* const a = sweep.lanes + upper;
  T* const b = sweep.lanes + lower;
  const int64_t seats = sweep.seats;
  vec<T> above = load<T>(sweep.squares + upper), below = load<T>(sweep.squares + lower), inner = {};
  for (int64_t k = 0; k < sweep.size; ++k) inner += load<T>(a + k * seats) * load<T>(b + k * seats);
  for (int round = 0; round < Group; ++round) {
    const Turn<T, vec<T>> by(inner, above, below, sweep.invisible);
    sweep.unsettled |= by.unsettled;
    above -= by.tangent * inner;
    below = next_lane<T, Group>(below + by.tangent * inner);
    vec<T> even = {}, odd = {};
    auto turn = [&](int64_t k) {
      const vec<T> first = load<T>(a + k * seats), second = load<T>(b + k * seats);
      const vec<T> up = by.up(first, second), down = next_lane<T, Group>(by.down(first, second));
      store<T>(a + k * seats, up);
      store<T>(b + k * seats, down);
      return up * down;
    };
    int64_t k = 0;
    for (; k + 2 <= sweep.size; k += 2) {
      even += turn(k);
      odd += turn(k + 1);
    }
    if (k < sweep.size) even += turn(k++);
    for (; k < sweep.lines; ++k) turn(k);
    inner = even + odd;
  }
  store<T>(sweep.squares + upper, above);
  store<T>(sweep.squares + lower, below);
}

// Lanes of two blocks change places: the lower halves of their groups to `upper`, the others to `lower`.
// Called twice, it restores both.
template <class T, int Group>
inline void exchange(const Sweep<T>& sweep, int64_t upper, int64_t lower) {
  auto swap = [](T* first, T* second) {
    const vec<T> a = load<T>(first), b = load<T>(second);
    store<T>(first, halves<T, Group, 0>(a, b));
    store<T>(second, halves<T, Group, 1>(a, b));
  };
  for (int64_t k = 0; k < sweep.lines; ++k)
    swap(sweep.lanes + k * sweep.seats + upper, sweep.lanes + k * sweep.seats + lower);
  swap(sweep.squares + upper, sweep.squares + lower);
  swap(sweep.marks + upper, sweep.marks + lower);
}

// Rows of one block against each other, two blocks at a time; `rows` are in use, from `upper` on.
template <class T, int Group = Vector<T>::width / 2>
inline void mingle(Sweep<T>& sweep, int64_t upper, int64_t lower, int64_t rows) {
  if constexpr (Group > 0) {
    if (rows <= Group) return mingle<T, Group / 2>(sweep, upper, lower, rows);
    exchange<T, 2 * Group>(sweep, upper, lower);
    meet<T, Group>(sweep, upper, lower);
    mingle<T, Group / 2>(sweep, upper, lower, rows);
    // a block without another keeps its rows
    if (rows <= Vector<T>::width) exchange<T, 2 * Group>(sweep, upper, lower);
  }
}

// squares[r] = |row r of A|^2; the largest of them.
template <class T>
inline T measure(const T* lanes, int64_t size, int64_t seats, T* squares) {
  constexpr int64_t width = Vector<T>::width;
  vec<T> most = {};
  for (int64_t r = 0; r < seats; r += width) {
    vec<T> total = {};
    for (int64_t k = 0; k < size; ++k)
      total += load<T>(lanes + k * seats + r) * load<T>(lanes + k * seats + r);
    store<T>(squares + r, total);
    most = max<T>(most, total);
  }
  return largest<T>(most);
}

// Sorts the rows by length, longest first: values [rows] are the lengths, order [rows] the lanes. A NaN is
// not moved.
template <class T>
inline void sort_lanes(int64_t seats, const T* squares, const T* marks, T* values, int64_t* order) {
  int64_t count = 0;
  for (int64_t r = 0; r < seats; ++r) {
    if (marks[r] == 0) continue;
    const T value = std::sqrt(squares[r]);
    int64_t at = count++;
    for (; at > 0 && values[at - 1] < value; --at) {
      values[at] = values[at - 1];
      order[at] = order[at - 1];
    }
    values[at] = value;
    order[at] = r;
  }
}

// Turns the lanes until their rows are orthogonal; spare: [2, seats].
template <class T>
inline void orthogonalise(T* lanes, int64_t seats, int64_t rows, int64_t size, int64_t lines, T* spare,
                          T* values, int64_t* order) {
  constexpr int64_t width = Vector<T>::width;
  const int64_t used = round_up(rows, width);
  T *const squares = spare, *const marks = squares + seats;
  for (int64_t r = 0; r < seats; ++r) marks[r] = r < rows ? T(1) : T(0);
  for (int count = 0; count < kSweeps; ++count) {
    const Invisible<T> invisible(measure(lanes, size, seats, squares), rows);
    Sweep<T> sweep{lanes, size, lines, seats, squares, marks, invisible};
    for (int64_t i = 0; i < used; i += width)
      for (int64_t j = i + width; j < used; j += width) meet<T, width>(sweep, i, j);
    for (int64_t i = 0; i < used; i += 2 * width) mingle<T>(sweep, i, i + width, rows - i);
    if (!any<T>(sweep.unsettled)) break;
  }
  measure(lanes, size, seats, squares);
  sort_lanes(seats, squares, marks, values, order);
}

// out [rows, count]: `count` lines from `first` on, row by row in the given order.
template <class T>
inline void gather_rows(const T* lanes, int64_t seats, int64_t rows, const int64_t* order, int64_t first,
                        int64_t count, T* out, int64_t ldo) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < count; ++k) out[i * ldo + k] = lanes[(first + k) * seats + order[i]];
}

}  // namespace geokernels::GEOKERNELS_LEVEL
