// The cosine of paired rows along the geodesic between two subspaces, and its gradient, for one problem.
//
//   cos = x^T G y / sqrt(x^T G x  y^T G y),   x^T G y = sum_j w+_j x+_j y+_j + w-_j x-_j y-_j
//   x+_j, x-_j = a_j . x +- q_j . x,   a_j = P u_j,  q_j = Q v_j,   P^T Q = U diag(g) V^T
//
// x, y         [N, D]
// p, q         [K, D], [L, D]   bases as rows, orthonormal or zero; M = max(K, L)
// cosine       [N]
// left, right  [M, M]           u_j and v_j as rows
// g            [M]              cosines of the principal angles, descending
// coordinates  [4, N, M]        x+, x-, y+, y-
//
// Only matrix products have the long dimension D, P^T Q and the projections of the rows forward and their
// transposes backward; everything between is M numbers a row. The smaller basis counts as filled up with zero
// rows. One thread a problem; problems share nothing.
//
// Both forms are sums of squares with positive, bounded weights (core/path.h), so x^T G x is never
// negative. A row with x^T G x <= eps scores 0, with zero gradient. Rows whose squares would overflow or
// vanish are scaled for them. The gradient to the bases goes through divided differences of the weights
// (geokernels/reference/geodesic.py) and is finite at equal angles and at angle 0. Zero rows of a basis
// receive 0. The order of every sum depends on sizes and vector width alone.
//
// Limits: K, L <= 256 (the caller's choice: beyond, blocked library solvers win).
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

// Fills rows from `known` on: each is the coordinate axis with the smallest part in the span of the rows
// before it, made orthogonal to them.
template <class T>
inline void complete_rows(T* rows, int64_t M, int64_t stride, int64_t known, T* seen) {
  for (int64_t k = 0; k < M; ++k) {
    seen[k] = 0;
    for (int64_t j = 0; j < known; ++j) seen[k] += rows[j * stride + k] * rows[j * stride + k];
  }
  for (int64_t j = known; j < M; ++j) {
    T* row = rows + j * stride;
    int64_t axis = 0;
    for (int64_t k = 0; k < M; ++k) {
      row[k] = 0;
      if (seen[k] < seen[axis]) axis = k;
    }
    row[axis] = 1;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t i = 0; i < j; ++i) {
        const T along = dot(row, rows + i * stride, M);
        for (int64_t k = 0; k < M; ++k) row[k] -= along * rows[i * stride + k];
      }
      const T length = std::sqrt(dot(row, row, M));
      for (int64_t k = 0; k < M; ++k) row[k] /= length;
    }
    for (int64_t k = 0; k < M; ++k) seen[k] += row[k] * row[k];
  }
}

// What the decomposition of the overlap needs.
template <class T>
struct OverlapRoom {
  T* lanes;            // [2 M, seats], of more than kTurned directions [M, seats]
  T* spare;            // [2, seats]
  int64_t* order;      // [M]
  Workspace<T> large;  // for a BidiagonalRoom of more than kTurned directions

  OverlapRoom(Workspace<T>& from, int64_t M) {
    const int64_t seats = most_seats<T>(M);
    const bool turned = M <= kTurned;
    lanes = from.take((turned ? 2 : 1) * M * seats);
    spare = from.take(2 * seats);
    order = from.template take_as<int64_t>(M);
    large = from.part(turned ? 0 : room_for<BidiagonalRoom, T>(M, M));
  }
};

// pair [M, 2 S]: rows [ u_j | v_j ], and their cosines g [M]. Spare: seen [M].
template <class T>
inline void decompose(const T* p, const T* q, int64_t D, int64_t K, int64_t L, T* pair, T* g, T* seen,
                      const OverlapRoom<T>& room) {
  const int64_t M = std::max(K, L), S = padded<T>(M), seats = seats_for<T>(M);
  const bool turned = M <= kTurned;
  T* const lanes = room.lanes;
  std::fill_n(lanes, (turned ? 2 : 1) * M * seats, T(0));
  dots(p, D, K, q, D, L, D, lanes, seats);
  if (!turned) {
    Workspace<T> memory = room.large;
    const BidiagonalRoom<T> at(memory, M, M);
    decompose_large(lanes, seats, at, true, g);
    for (int64_t j = 0; j < M; ++j) {
      std::copy_n(at.left + at.order[j] * at.ldl, M, pair + j * 2 * S);
      std::copy_n(at.right + at.order[j] * at.ldr, M, pair + j * 2 * S + S);
    }
    return;
  }
  for (int64_t j = 0; j < M; ++j) lanes[(M + j) * seats + j] = 1;
  orthogonalise(lanes, seats, M, M, 2 * M, room.spare, g, room.order);
  gather_rows(lanes, seats, M, room.order, 0, M, pair, 2 * S);
  gather_rows(lanes, seats, M, room.order, M, M, pair + S, 2 * S);
  // below rounding, what is left of a row has no direction: any u_j orthogonal to the others will do
  int64_t known = 0;
  for (; known < M && g[known] > M * std::numeric_limits<T>::epsilon(); ++known)
    for (int64_t k = 0; k < M; ++k) pair[known * 2 * S + k] /= g[known];
  complete_rows(pair, M, 2 * S, known, seen);
}

// What both directions use, all with rows of S = padded(M) numbers, zero on entry.
template <class T>
struct Frame {
  T* pair;         // [M, 2 S]     u_j | v_j
  T* columns_p;    // [M, S]       row k holds u_j[k] for all j
  T* columns_q;    // [M, S]
  T* coordinates;  // [4, N, S]    x+, x-, y+, y-
  T* seen;         // [S]
  Path<T> path;    // [7, S]

  Frame(Workspace<T>& from, int64_t M, int64_t N, int64_t S)
      : pair(from.take_zeros(2 * M * S)),
        columns_p(from.take_zeros(M * S)),
        columns_q(from.take_zeros(M * S)),
        coordinates(from.take_zeros(4 * N * S)),
        seen(from.take_zeros(S)),
        path(from.take_zeros(Path<T>::arrays * S), S) {}
};

// x+ and x- of one side: [N, S] each, through projections [2, N, S] of scratch. `rows` is N, or 1 for a row
// that is the same in every pair.
template <class T>
inline void coordinates_of(const T* x, int64_t rows, const T* p, const T* q, int64_t N, int64_t D, int64_t K,
                           int64_t L, int64_t S, const Frame<T>& frame, T* plus, T* minus, T* projections) {
  T* on_p = projections;
  T* on_q = projections + N * S;
  dots(x, D, rows, p, D, K, D, on_p, S);
  dots(x, D, rows, q, D, L, D, on_q, S);
  combine(on_p, S, rows, frame.columns_p, S, K, S, plus, S);
  combine(on_q, S, rows, frame.columns_q, S, L, S, minus, S);
  for (int64_t i = 0; i < rows * S; ++i) {
    const T a = plus[i], b = minus[i];
    plus[i] = a + b;
    minus[i] = a - b;
  }
  for (int64_t n = rows; n < N; ++n) {
    std::copy_n(plus, S, plus + n * S);
    std::copy_n(minus, S, minus + n * S);
  }
}

// Coordinates of a row on one side, and what they are multiplied by before they are squared.
template <class T>
struct Moderated {
  const T *plus, *minus;
  T scale;

  Moderated(const T* plus, const T* minus, int64_t S) : plus(plus), minus(minus) {
    T most = 0;
    for (int64_t j = 0; j < S; ++j) {
      most = std::max(most, std::fabs(plus[j]));
      most = std::max(most, std::fabs(minus[j]));
    }
    scale = moderation(most);
  }

  bool has_direction(T square, T eps) const { return square > eps * scale * scale; }
};

// sum_j w+_j x+_j y+_j + w-_j x-_j y-_j, moderated
template <class T>
inline T product(const Path<T>& path, int64_t S, const Moderated<T>& x, const Moderated<T>& y) {
  vec<T> total = {};
  for (int64_t j = 0; j < S; j += Vector<T>::width)
    total +=
        load<T>(path.sum + j) * (load<T>(x.plus + j) * x.scale) * (load<T>(y.plus + j) * y.scale) +
        load<T>(path.difference + j) * (load<T>(x.minus + j) * x.scale) * (load<T>(y.minus + j) * y.scale);
  return sum<T>(total);
}

// The three products of row n, moderated, and whether both sides have a direction.
template <class T>
struct Products {
  Moderated<T> x, y;
  T xx, xy, yy;
  bool directed;

  Products(const Frame<T>& frame, int64_t N, int64_t S, int64_t n, T eps)
      : x(frame.coordinates + n * S, frame.coordinates + (N + n) * S, S),
        y(frame.coordinates + (2 * N + n) * S, frame.coordinates + (3 * N + n) * S, S) {
    xx = product(frame.path, S, x, x);
    xy = product(frame.path, S, x, y);
    yy = product(frame.path, S, y, y);
    directed = x.has_direction(xx, eps) && y.has_direction(yy, eps);
  }
};

template <class T>
struct CosineRoom {
  Frame<T> frame;
  T* projections;  // [2, N, S]
  OverlapRoom<T> overlap;

  CosineRoom(Workspace<T>& from, int64_t N, int64_t M)
      : frame(from, M, N, padded<T>(M)),
        projections(from.take_zeros(2 * N * padded<T>(M))),
        overlap(from, M) {}
};

// y: [rows_y, D], with rows_y N, or 1 for a row that is paired with each of x.
// work: for a CosineRoom of N and M.
template <class T>
void cosine_problem(const T* x, const T* y, int64_t rows_y, const T* p, const T* q, int64_t N, int64_t D,
                    int64_t K, int64_t L, double eps, T* cosine, T* left, T* right, T* g, T* coordinates,
                    Workspace<T> work) {
  const int64_t M = std::max(K, L), S = padded<T>(M);
  const CosineRoom<T> room(work, N, M);
  const Frame<T>& frame = room.frame;
  T* const projections = room.projections;

  decompose(p, q, D, K, L, frame.pair, frame.path.g, frame.seen, room.overlap);
  transpose(frame.pair, 2 * S, M, M, frame.columns_p, S);
  transpose(frame.pair + S, 2 * S, M, M, frame.columns_q, S);
  weigh(frame.path, S);

  T* at = frame.coordinates;
  coordinates_of(x, N, p, q, N, D, K, L, S, frame, at, at + N * S, projections);
  coordinates_of(y, rows_y, p, q, N, D, K, L, S, frame, at + 2 * N * S, at + 3 * N * S, projections);
  for (int64_t n = 0; n < N; ++n) {
    const Products<T> of(frame, N, S, n, T(eps));
    // without direction 0, but NaN where anything is NaN or infinite
    cosine[n] = of.directed ? of.xy / (std::sqrt(of.xx) * std::sqrt(of.yy)) : 0 * (of.xx + of.yy);
  }

  for (int64_t j = 0; j < M; ++j) {
    g[j] = frame.path.g[j];
    for (int64_t k = 0; k < M; ++k) {
      left[j * M + k] = frame.pair[j * 2 * S + k];
      right[j * M + k] = frame.pair[j * 2 * S + S + k];
    }
  }
  for (int64_t i = 0; i < 4 * N; ++i)
    for (int64_t j = 0; j < M; ++j) coordinates[i * M + j] = at[i * S + j];
}

}  // namespace geokernels::GEOKERNELS_LEVEL
