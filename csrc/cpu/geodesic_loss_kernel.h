// A loss of geodesic morphing and its gradient to the current features, for one problem.
//
//   loss = 1 - 1/N sum_n cos(x_n, y_n)   along the geodesic from P, a basis of x, to Q, a basis of z
//
//   without sources   x = current, y = z = other                                     two iterates
//   with sources      x, z = unit rows of current - source, other - other_source     a change of the picture
//                     y = unit mean of z, the same for all x                         and one of the text
//
// Nothing but the loss and the gradient leaves the caches. Upstream of a mean every cosine counts the same,
// so that the gradient is known up to a factor when the loss is, and is made with it: backward only scales.
// The steps are those of cpu/subspace_kernel.h and cpu/geodesic_kernel.h, with their limits and degenerate
// cases; a difference of length up to `shortest` is a row of zeros with zero gradient. One thread a problem.
// NaN and infinities reach the loss.

namespace geokernels::GEOKERNELS_LEVEL {

// Where everything lies in the scratch memory of one problem, in numbers from its beginning.
template <class T>
struct LossLayout {
  int64_t size = 0;
  int64_t order;  // lanes that the decompositions sort, a memory of its own
  int64_t x, z, y, lengths;
  int64_t left, p, values, other_left, q, other_values;
  int64_t cosines, u, v, g, coordinates;
  int64_t upstream, to_p;
  int64_t work;

  explicit LossLayout(const LossProblem<T>& l) {
    const int64_t N = l.N, D = l.D, rows = l.rows, M = std::max(l.K, l.L);
    const int64_t R = std::min(N, D), made = l.q ? 0 : std::min(rows, D);
    x = take(l.source ? N * D : 0);
    z = take(l.source ? rows * D : 0);
    y = take(l.source ? D : 0);
    lengths = take(l.source ? N + rows + 1 : 0);
    left = take(R * N);
    p = take(R * D);
    values = take(R);
    other_left = take(made * rows);
    q = take(made * D);
    other_values = take(made);
    cosines = take(N);
    u = take(M * M);
    v = take(M * M);
    g = take(M);
    coordinates = take(4 * N * M);
    upstream = take(N);
    to_p = take(R * D);
    work = size;
    take(std::max({basis_scratch<T>(N, D), made ? basis_scratch<T>(rows, D) : 0, cosine_scratch<T>(N, M),
                   cosine_backward_scratch<T>(N, M), basis_backward_scratch(N, D), l.source ? rows : 0}));
    order = std::max({R, made, M});
  }

  int64_t take(int64_t count) {
    const int64_t at = size;
    size += padded<T>(count);
    return at;
  }
};

// out [N, D] = unit rows of x - from, and their lengths before; 0 for rows without direction.
template <class T>
inline void unit_differences(const T* x, const T* from, int64_t N, int64_t D, T shortest, T* out,
                             T* lengths) {
  for (int64_t n = 0; n < N; ++n) {
    T* const row = out + n * D;
    for (int64_t d = 0; d < D; ++d) row[d] = x[n * D + d] - (from ? from[n * D + d] : T(0));
    const T square = dot(row, row, D);
    // NaN has a length, and is handed on
    lengths[n] = square <= shortest * shortest ? T(0) : std::sqrt(square);
    if (lengths[n] == 0)
      std::fill_n(row, D, T(0));
    else
      scale_row(row, D, 1 / lengths[n], row);
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

// scratch: LossLayout::size numbers; order: LossLayout::order spare.
template <class T>
void loss_problem(const LossProblem<T>& l, T* scratch, int64_t* order) {
  const LossLayout<T> at(l);
  const int64_t N = l.N, D = l.D, M = std::max(l.K, l.L);
  auto rtol = [D](int64_t rows) { return double(std::max(rows, D)) * std::numeric_limits<T>::epsilon(); };
  T* const work = scratch + at.work;
  T* const p = scratch + at.p;
  const T *x = l.current, *z = l.other, *y = l.other, *q = l.q;
  int64_t rows_y = N;
  if (l.source) {
    const T shortest = T(l.shortest);
    T* const mean = scratch + at.y;
    unit_differences(l.current, l.source, N, D, shortest, scratch + at.x, scratch + at.lengths);
    unit_differences(l.other, l.other_source, l.rows, D, shortest, scratch + at.z, scratch + at.lengths + N);
    x = scratch + at.x;
    z = scratch + at.z;
    std::fill_n(work, l.rows, 1 / T(l.rows));
    combine(work, l.rows, 1, z, D, l.rows, D, mean, D);
    unit_differences<T>(mean, nullptr, 1, D, shortest, mean, scratch + at.lengths + N + l.rows);
    y = mean;
    rows_y = 1;
  }

  basis_problem(x, N, D, rtol(N), scratch + at.left, p, scratch + at.values, work, order);
  if (!q) {
    basis_problem(z, l.rows, D, rtol(l.rows), scratch + at.other_left, scratch + at.q,
                  scratch + at.other_values, work, order);
    q = scratch + at.q;
  }
  T *const cosines = scratch + at.cosines, *const u = scratch + at.u, *const v = scratch + at.v,
           *const g = scratch + at.g, *const coordinates = scratch + at.coordinates;
  std::fill_n(work, cosine_scratch<T>(N, M), T(0));
  cosine_problem(x, y, rows_y, p, q, N, D, l.K, l.L, l.eps, cosines, u, v, g, coordinates, work, order);
  T total = 0;
  for (int64_t n = 0; n < N; ++n) total += cosines[n];
  *l.loss = 1 - total / T(N);
  if (!l.gradient) return;

  T *const upstream = scratch + at.upstream, *const to_p = scratch + at.to_p;
  T* const to[4] = {l.gradient, nullptr, l.follow ? to_p : nullptr, nullptr};
  std::fill_n(upstream, N, -1 / T(N));
  std::fill_n(work, cosine_backward_scratch<T>(N, M), T(0));
  cosine_backward_problem(upstream, x, y, rows_y, p, q, u, v, g, coordinates, N, D, l.K, l.L, l.eps, to,
                          work);
  if (l.follow) {
    // directions beyond the rank take no part
    std::fill(to_p + l.K * D, to_p + std::min(N, D) * D, T(0));
    basis_backward_problem<T>(to_p, nullptr, scratch + at.left, p, scratch + at.values, N, D, l.K, l.gradient,
                              work, true);
  }
  if (l.source) through_unit_rows(x, scratch + at.lengths, N, D, l.gradient);
}

}  // namespace geokernels::GEOKERNELS_LEVEL
