// Gradient of the cosine along a geodesic to the rows and to both bases, for one problem.
// Names, layout and limits are those of cpu/geodesic_kernel.h.
//
//   d cos / d(x+, x-) = 2 w (k_xx x + k_xy y / 2),  k_xy = 1 / (|x||y|),  k_xx = -cos / (2 |x|^2)
//
// per row, in coordinates; P and Q then carry it to x, and x to P and Q. The weights move with
// E = U^T d(P^T Q) V, by
//
//   sum_ij E_ij ( w+[i,j] M++_ij + w-[i,j] M--_ij + t_ji - t_ij ),   t_ij = m_ij M+-_ij
//
// with M the sums of outer products of coordinates over rows, w[i,j] divided differences, and
// m_ij = (w+_i - w-_j) / (g_i + g_j).
//
// No include guard: included once for every SIMD level.

#include "cpu/geodesic_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

// What a row's gradient is made of: turned [4, N, S] = k_xx x + k_xy y / 2 in all coordinates.
template <class T>
inline void turn_coordinates(const T* grad, int64_t N, int64_t S, T eps, const Frame<T>& frame, T* turned) {
  for (int64_t n = 0; n < N; ++n) {
    const Products<T> of(frame, N, S, n, eps);
    if (!of.directed) continue;
    const T both = grad[n] / (std::sqrt(of.xx) * std::sqrt(of.yy)) / 2;
    const T own_x = -both * of.xy / of.xx, own_y = -both * of.xy / of.yy;
    for (int64_t sign = 0; sign < 2; ++sign) {
      const int64_t at_x = (sign * N + n) * S, at_y = ((2 + sign) * N + n) * S;
      for (int64_t j = 0; j < S; ++j) {
        const T x = frame.coordinates[at_x + j] * of.x.scale, y = frame.coordinates[at_y + j] * of.y.scale;
        turned[at_x + j] = (own_x * x + both * y) * of.x.scale;
        turned[at_y + j] = (own_y * y + both * x) * of.y.scale;
      }
    }
  }
}

// Gradients to P^T x [N, S] and Q^T x [N, S] of one side from its turned coordinates; sums [2, N, S] spare.
template <class T>
inline void projection_gradients(const T* plus, const T* minus, int64_t N, int64_t M, int64_t S,
                                 const Frame<T>& frame, T* sums, T* on_p, T* on_q) {
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < S; ++j) {
      const int64_t i = n * S + j;
      const T along = 2 * frame.path.sum[j] * plus[i], across = 2 * frame.path.difference[j] * minus[i];
      sums[i] = along + across;
      sums[N * S + i] = along - across;
    }
  combine(sums, S, N, frame.pair, 2 * S, M, S, on_p, S);
  combine(sums + N * S, S, N, frame.pair + S, 2 * S, M, S, on_q, S);
}

// out [M, S] = sum_n x_n turned_x_n^T + y_n turned_y_n^T, with the sign of each side chosen by offset.
template <class T>
inline void outer_sums(const Frame<T>& frame, const T* turned, int64_t first, int64_t second, int64_t N,
                       int64_t M, int64_t S, T* columns, T* out) {
  for (int64_t side = 0; side < 2; ++side) {
    transpose(frame.coordinates + (2 * side + first) * N * S, S, N, M, columns, N);
    combine(columns, N, M, turned + (2 * side + second) * N * S, S, N, S, out, S, side == 1);
  }
}

// Gradient to P^T Q, [M, S]; work: [4, M, S] and columns [M, N] spare.
template <class T>
inline void overlap_gradient(const Frame<T>& frame, const T* turned, int64_t N, int64_t M, int64_t S, T* work,
                             T* columns, T* out) {
  T* plus = work;
  T* minus = plus + M * S;
  T* twist = minus + M * S;
  T* inner = twist + M * S;
  outer_sums(frame, turned, 0, 0, N, M, S, columns, plus);
  outer_sums(frame, turned, 1, 1, N, M, S, columns, minus);
  outer_sums(frame, turned, 0, 1, N, M, S, columns, twist);
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t j = 0; j < M; ++j) twist[i * S + j] *= mixed(frame.path, i, j);
    for (int64_t j = 0; j < S; j += Vector<T>::width) {
      vec<T> sum, difference;
      slopes(frame.path, i, j, sum, difference);
      const int64_t at = i * S + j;
      store<T>(inner + at, sum * load<T>(plus + at) + difference * load<T>(minus + at));
    }
  }
  for (int64_t i = 0; i < M; ++i)
    for (int64_t j = 0; j < M; ++j) inner[i * S + j] += twist[j * S + i] - twist[i * S + j];
  combine(inner, S, M, frame.pair + S, 2 * S, M, S, plus, S);
  combine(frame.columns_p, S, M, plus, S, M, S, out, S);
}

// grad_p [K, D] from the gradients to P^T x, P^T y [N, S] and P^T Q (coefficients [K, L], rows ldc apart).
template <class T>
inline void basis_gradient(const T* x, const T* y, int64_t rows_y, const T* basis, const T* other,
                           const T* on_x, const T* on_y, const T* coefficients, int64_t ldc, int64_t N,
                           int64_t D, int64_t K, int64_t L, int64_t S, T* columns, T* grad) {
  transpose(on_x, S, N, K, columns, N);
  combine(columns, N, K, x, D, N, D, grad, D);
  transpose(on_y, S, N, K, columns, N);
  for (int64_t k = 0; rows_y < N && k < K; ++k) {
    T total = 0;
    for (int64_t n = 0; n < N; ++n) total += columns[k * N + n];
    columns[k] = total;
  }
  combine(columns, rows_y, K, y, D, rows_y, D, grad, D, true);
  combine(coefficients, ldc, K, other, D, L, D, grad, D, true);
  for (int64_t k = 0; k < K; ++k) {
    bool zero = true;
    for (int64_t d = 0; d < D && zero; ++d) zero = basis[k * D + d] == 0;
    if (zero) std::fill(grad + k * D, grad + (k + 1) * D, T(0));
  }
}

template <class T>
struct CosineBackwardRoom {
  Frame<T> frame;
  T* turned;      // [4, N, S]
  T* on;          // [4, N, S]   gradients to P^T x, Q^T x, P^T y, Q^T y
  T* sums;        // [2, N, S]
  T* overlap;     // [M, S]      gradient to P^T Q
  T* transposed;  // [M, S]
  T* work;        // [4, M, S]
  T* columns;     // [M, max(M, N)]

  CosineBackwardRoom(Workspace<T>& from, int64_t N, int64_t M) : frame(from, M, N, padded<T>(M)) {
    const int64_t S = padded<T>(M);
    turned = from.take_zeros(4 * N * S);
    on = from.take_zeros(4 * N * S);
    sums = from.take_zeros(2 * N * S);
    overlap = from.take_zeros(M * S);
    transposed = from.take_zeros(M * S);
    work = from.take_zeros(4 * M * S);
    columns = from.take(M * std::max(M, N));
  }
};

// out: gradients to x, y, p, q, null where not wanted; that to a y of one row is not made.
// memory: for a CosineBackwardRoom of N and M.
template <class T>
void cosine_backward_problem(const T* grad, const T* x, const T* y, int64_t rows_y, const T* p, const T* q,
                             const T* left, const T* right, const T* g, const T* coordinates, int64_t N,
                             int64_t D, int64_t K, int64_t L, double eps, T* const* out,
                             Workspace<T> memory) {
  const int64_t M = std::max(K, L), S = padded<T>(M), side = N * S;
  const auto [frame, turned, on, sums, overlap, transposed, work, columns] =
      CosineBackwardRoom<T>(memory, N, M);

  for (int64_t j = 0; j < M; ++j) {
    frame.path.g[j] = g[j];
    for (int64_t k = 0; k < M; ++k) {
      frame.pair[j * 2 * S + k] = left[j * M + k];
      frame.pair[j * 2 * S + S + k] = right[j * M + k];
    }
  }
  for (int64_t i = 0; i < 4 * N; ++i)
    for (int64_t j = 0; j < M; ++j) frame.coordinates[i * S + j] = coordinates[i * M + j];
  weigh(frame.path, S);
  turn_coordinates(grad, N, S, T(eps), frame, turned);
  const bool to_bases = out[2] || out[3];
  if (out[0] || to_bases) projection_gradients(turned, turned + side, N, M, S, frame, sums, on, on + side);
  if (out[1] || to_bases)
    projection_gradients(turned + 2 * side, turned + 3 * side, N, M, S, frame, sums, on + 2 * side,
                         on + 3 * side);

  if (out[0]) {
    combine(on, S, N, p, D, K, D, out[0], D);
    combine(on + side, S, N, q, D, L, D, out[0], D, true);
  }
  if (out[1]) {
    combine(on + 2 * side, S, N, p, D, K, D, out[1], D);
    combine(on + 3 * side, S, N, q, D, L, D, out[1], D, true);
  }
  if (!to_bases) return;
  transpose(frame.pair, 2 * S, M, M, frame.columns_p, S);
  overlap_gradient(frame, turned, N, M, S, work, columns, overlap);
  if (out[2])
    basis_gradient(x, y, rows_y, p, q, on, on + 2 * side, overlap, S, N, D, K, L, S, columns, out[2]);
  if (out[3]) {
    transpose(overlap, S, M, M, transposed, S);
    basis_gradient(x, y, rows_y, q, p, on + side, on + 3 * side, transposed, S, N, D, L, K, S, columns,
                   out[3]);
  }
}

}  // namespace geokernels::GEOKERNELS_LEVEL
