// A loss of geodesic morphing and its gradient to the current features, for one problem.
//
//   loss = 1 - 1/N sum_n cos(x_n, y_n)   along the geodesic from P, a basis of x, to Q, a basis of z
//
//   without sources   x = current, y = z = other                                     two iterates
//   with sources      x, z = unit rows of current - source, other - other_source     a change of the picture
//                     y = unit mean of z, the same for all x                         and one of the text
//
// Only the loss and the gradient are written to memory. In a mean every cosine counts the same, so that the
// gradient is known up to a factor together with the loss, and is computed with it: backward only scales it.
// The steps are those of cpu/subspace_kernel.h and cpu/geodesic_kernel.h, with their limits and degenerate
// cases; a difference of length up to `shortest` is a row of zeros with zero gradient. One thread a problem.
// NaN and infinities reach the loss.
//
// No include guard: included once for every SIMD level.

#include "cpu/geodesic_backward_kernel.h"
#include "cpu/subspace_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct LossRoom {
  T *x, *z, *y, *lengths, *shares;  // with sources alone
  T *left, *p, *values, *other_left, *q, *other_values;
  T *cosines, *u, *v, *g, *coordinates;
  T *upstream, *to_p;
  Workspace<T> work;  // for one step at a time

  LossRoom(Workspace<T>& from, const LossProblem<T>& l) {
    const int64_t N = l.N, D = l.D, rows = l.rows, M = std::max(l.K, l.L);
    const int64_t R = std::min(N, D), made = l.q ? 0 : std::min(rows, D);
    x = from.take(l.source ? N * D : 0);
    z = from.take(l.source ? rows * D : 0);
    y = from.take(l.source ? D : 0);
    lengths = from.take(l.source ? N + rows + 1 : 0);
    shares = from.take(l.source ? rows : 0);
    left = from.take(R * N);
    p = from.take(R * D);
    values = from.take(R);
    other_left = from.take(made * rows);
    q = from.take(made * D);
    other_values = from.take(made);
    cosines = from.take(N);
    u = from.take(M * M);
    v = from.take(M * M);
    g = from.take(M);
    coordinates = from.take(4 * N * M);
    upstream = from.take(N);
    to_p = from.take(R * D);
    work = from.part(std::max({room_for<BasisRoom, T>(N, D), made ? room_for<BasisRoom, T>(rows, D) : 0,
                               room_for<CosineRoom, T>(N, M), room_for<CosineBackwardRoom, T>(N, M),
                               room_for<BasisBackwardRoom, T>(N, D)}));
  }
};

// out [N, D] = unit rows of x - from, and their lengths before; 0 for rows without direction.
template <class T>
inline void unit_differences(const T* x, const T* from, int64_t N, int64_t D, T shortest, T* out,
                             T* lengths) {
  for (int64_t n = 0; n < N; ++n) {
    T* const row = out + n * D;
    for (int64_t d = 0; d < D; ++d) row[d] = x[n * D + d] - (from ? from[n * D + d] : T(0));
    const Extremes<T> of(row, D);
    const T scale = moderation(std::max(of.high, of.low));
    if (scale != 1) scale_row(row, D, scale, row);
    const T square = dot(row, row, D), least = shortest * scale;
    // NaN counts as a length, and is passed on
    const T length = square <= least * least ? T(0) : std::sqrt(square);
    lengths[n] = length / scale;
    if (length == 0)
      std::fill_n(row, D, T(0));
    else
      scale_row(row, D, 1 / length, row);
  }
}

// The gradient to differences, in place, from that to their unit rows x.
template <class T>
inline void through_unit_rows(const T* x, const T* lengths, int64_t N, int64_t D, T* grad) {
  for (int64_t n = 0; n < N; ++n) {
    const T along = dot(x + n * D, grad + n * D, D), inverse = lengths[n] == 0 ? T(0) : 1 / lengths[n];
    for (int64_t d = 0; d < D; ++d) grad[n * D + d] = (grad[n * D + d] - along * x[n * D + d]) * inverse;
  }
}

// memory: for a LossRoom of l.
template <class T>
void loss_problem(const LossProblem<T>& l, Workspace<T> memory) {
  const LossRoom<T> at(memory, l);
  const int64_t N = l.N, D = l.D;
  auto rtol = [D](int64_t rows) { return double(std::max(rows, D)) * std::numeric_limits<T>::epsilon(); };
  T* const p = at.p;
  const T *x = l.current, *z = l.other, *y = l.other, *q = l.q;
  int64_t rows_y = N;
  if (l.source) {
    const T shortest = T(l.shortest);
    T* const mean = at.y;
    unit_differences(l.current, l.source, N, D, shortest, at.x, at.lengths);
    unit_differences(l.other, l.other_source, l.rows, D, shortest, at.z, at.lengths + N);
    x = at.x;
    z = at.z;
    std::fill_n(at.shares, l.rows, 1 / T(l.rows));
    combine(at.shares, l.rows, 1, z, D, l.rows, D, mean, D);
    unit_differences<T>(mean, nullptr, 1, D, shortest, mean, at.lengths + N + l.rows);
    y = mean;
    rows_y = 1;
  }

  basis_problem(x, N, D, rtol(N), at.left, p, at.values, at.work.again());
  if (!q) {
    basis_problem(z, l.rows, D, rtol(l.rows), at.other_left, at.q, at.other_values, at.work.again());
    q = at.q;
  }
  T *const cosines = at.cosines, *const u = at.u, *const v = at.v, *const g = at.g,
           *const coordinates = at.coordinates;
  cosine_problem(x, y, rows_y, p, q, N, D, l.K, l.L, l.eps, cosines, u, v, g, coordinates, at.work.again());
  T total = 0;
  for (int64_t n = 0; n < N; ++n) total += cosines[n];
  *l.loss = 1 - total / T(N);
  if (!l.gradient) return;

  T *const upstream = at.upstream, *const to_p = at.to_p;
  T* const to[4] = {l.gradient, nullptr, l.follow ? to_p : nullptr, nullptr};
  std::fill_n(upstream, N, -1 / T(N));
  cosine_backward_problem(upstream, x, y, rows_y, p, q, u, v, g, coordinates, N, D, l.K, l.L, l.eps, to,
                          at.work.again());
  if (l.follow) {
    // directions beyond the rank take no part
    std::fill(to_p + l.K * D, to_p + std::min(N, D) * D, T(0));
    basis_backward_problem<T>(to_p, nullptr, at.left, p, at.values, N, D, l.K, l.gradient, at.work.again(),
                              true);
  }
  if (l.source) through_unit_rows(x, at.lengths, N, D, l.gradient);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
