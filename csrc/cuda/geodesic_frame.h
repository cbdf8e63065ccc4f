// What a block of the geodesic cosine keeps of a problem: the frame of principal vectors, and the weights.
//
// Matrices of M x M stay in shared memory where they fit. The weights are core/path_formulas.h, the small
// singular value problem cuda/jacobi.h.

#pragma once

#include <cmath>

#include "cuda/formulas.h"
#include "cuda/jacobi.h"
#include "cuda/room.h"

namespace geokernels {

constexpr int kGeodesicThreads = 256, kGeodesicWarps = kGeodesicThreads / kWarp;

// What a block keeps of a problem. The stride of a matrix is odd, so that a column falls into
// different banks of shared memory.
template <class T>
struct Frame {
  int M, stride;
  T *u, *v;                  // [M, stride]   u_j and v_j as rows
  T *g, *c, *h1, *h, *sinc;  // [M]
  T *sum, *difference;       // [M]   w+, w-
  T* projections;            // [warps, 2, stride]
  T *work, *more;            // [M, stride], or spacing(M) apart

  __host__ __device__ Frame(T* memory, int M) : M(M), stride(M | 1) {
    u = memory, v = u + M * stride;
    T* at = v + M * stride;
    for (T** array : {&g, &c, &h1, &h, &sinc, &sum, &difference}) *array = at, at += M;
    projections = at;
    work = projections + kGeodesicWarps * 2 * stride;
    more = work + M * widest(M);
  }

  static int64_t room(int64_t M) {
    return 2 * M * ((M | 1) + widest(M)) + 7 * M + kGeodesicWarps * 2 * (M | 1);
  }

  __host__ __device__ static int64_t widest(int64_t M) { return spacing(M) > (M | 1) ? spacing(M) : M | 1; }

  __device__ void weigh() const {
    for (int j = threadIdx.x; j < M; j += kGeodesicThreads) {
      const device::Angle<T> angle(g[j]);
      c[j] = angle.c, h1[j] = angle.h1, h[j] = angle.h, sinc[j] = angle.sinc;
      sum[j] = angle.sum, difference[j] = angle.difference;
    }
    __syncthreads();
  }
};

// out[i] = <a_i, b> for `count` rows of a, `width` apart, each along all lanes of this warp.
template <class T>
__device__ inline void warp_dots(const T* a, int count, const T* b, int64_t width, T* out) {
  constexpr int R = 8;  // rows at a time
  for (int first = 0; first < count; first += R) {
    T sums[R] = {};
    for (int64_t d = lane(); d < width; d += kWarp) {
      const T own = b[d];
#pragma unroll
      for (int r = 0; r < R; ++r)
        if (first + r < count) sums[r] += a[(first + r) * width + d] * own;
    }
    const T sum = sum_each<R>(sums);
    if (lane() < R && first + lane() < count) out[first + lane()] = sum;
  }
}

// Coordinates x+ and x- of a row, `step` apart, and what they are multiplied by before they are squared.
template <class T>
struct Moderated {
  const T *plus, *minus;
  T scale;

  __device__ Moderated(const T* at, int64_t step, int M) : plus(at), minus(at + step) {
    T most = 0;
    for (int j = lane(); j < M; j += kWarp)
      most = std::fmax(most, std::fmax(std::fabs(plus[j]), std::fabs(minus[j])));
    scale = device::moderation(warp_max(most));
  }
};

// The three products of a row of each side, sums of w+_j x+_j y+_j + w-_j x-_j y-_j over the lanes of this
// warp, moderated, and whether both have a direction.
template <class T>
struct Products {
  Moderated<T> x, y;
  T xx, xy, yy;
  bool directed;

  // at: x+, x-, y+ and y- of the row, `step` apart.
  __device__ Products(const Frame<T>& frame, const T* at, int64_t step, T eps)
      : x(at, step, frame.M), y(at + 2 * step, step, frame.M) {
    xx = product(frame, x, x), xy = product(frame, x, y), yy = product(frame, y, y);
    directed = xx > eps * x.scale * x.scale && yy > eps * y.scale * y.scale;
  }

 private:
  __device__ static T product(const Frame<T>& frame, const Moderated<T>& x, const Moderated<T>& y) {
    T total = 0;
    for (int j = lane(); j < frame.M; j += kWarp)
      total += frame.sum[j] * (x.plus[j] * x.scale) * (y.plus[j] * y.scale) +
               frame.difference[j] * (x.minus[j] * x.scale) * (y.minus[j] * y.scale);
    return warp_sum(total);
  }
};

// Fills rows from `known` on: each is the coordinate axis with the smallest part in the span of the rows
// before it, made orthogonal to them. One warp.
template <class T>
__device__ void complete_rows(T* rows, int M, int stride, int known) {
  for (int j = known; j < M; ++j) {
    T* row = rows + j * stride;
    // the axis with the smallest part; the first one among equals
    T least = infinity<T>();
    int axis = M;
    for (int k = lane(); k < M; k += kWarp) {
      T seen = 0;
      for (int i = 0; i < j; ++i) seen += rows[i * stride + k] * rows[i * stride + k];
      if (seen < least) least = seen, axis = k;
    }
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, least, lanes);
      const int its = __shfl_xor_sync(kAllLanes, axis, lanes);
      if (other < least || (other == least && its < axis)) least = other, axis = its;
    }
    for (int k = lane(); k < M; k += kWarp) row[k] = k == axis;
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < j; ++i) {
        T along = 0;
        for (int k = lane(); k < M; k += kWarp) along += row[k] * rows[i * stride + k];
        along = warp_sum(along);
        for (int k = lane(); k < M; k += kWarp) row[k] -= along * rows[i * stride + k];
      }
      T square = 0;
      for (int k = lane(); k < M; k += kWarp) square += row[k] * row[k];
      const T length = std::sqrt(warp_sum(square));
      for (int k = lane(); k < M; k += kWarp) row[k] /= length;
    }
    __syncwarp();
  }
}

// u, v and g of a frame from two bases; squares, order: [M] spare.
template <class T>
__device__ void decompose(const T* p, const T* q, int64_t D, int K, int L, const Frame<T>& frame, T* squares,
                          int* order) {
  const int M = frame.M, ld = int(spacing(M));
  T *a = frame.work, *j = frame.more;  // [M, ld], the rows of q in the first basis
  for (int i = threadIdx.x; i < M * ld; i += kGeodesicThreads) a[i] = 0;
  set_identity(j, M, ld);
  __syncthreads();
  for (int r = warp(); r < L; r += kGeodesicWarps) warp_dots(p, K, q + r * D, D, a + r * ld);
  __syncthreads();
  orthogonalise_rows(a, j, M, M, ld, squares);
  sort_rows(squares, M, order);
  const T noise = M * std::numeric_limits<T>::epsilon();
  for (int i = warp(); i < M; i += kGeodesicWarps) {
    const int from = order[i];
    const T length = std::sqrt(squares[from]), unit = length > noise ? 1 / length : T(0);
    for (int k = lane(); k < M; k += kWarp) {
      frame.u[i * frame.stride + k] = a[from * ld + k] * unit;
      frame.v[i * frame.stride + k] = j[from * ld + k];
    }
    if (lane() == 0) frame.g[i] = length;
  }
  __syncthreads();
  // below rounding, what is left of a row has no direction: any u_j orthogonal to the others will do
  int known = 0;
  while (known < M && frame.g[known] > noise) ++known;
  if (warp() == 0) complete_rows(frame.u, M, frame.stride, known);
  __syncthreads();
}

// x+ and x- of one row by one warp; mine: its projections, [2, stride] spare.
template <class T>
__device__ void coordinates_of(const T* row, const T* p, const T* q, int64_t D, int K, int L,
                               const Frame<T>& frame, T* mine, T* plus, T* minus) {
  T *on_p = mine, *on_q = mine + frame.stride;
  warp_dots(p, K, row, D, on_p);
  warp_dots(q, L, row, D, on_q);
  __syncwarp();
  for (int j = lane(); j < frame.M; j += kWarp) {
    T a = 0, b = 0;
    for (int k = 0; k < K; ++k) a += on_p[k] * frame.u[j * frame.stride + k];
    for (int k = 0; k < L; ++k) b += on_q[k] * frame.v[j * frame.stride + k];
    plus[j] = a + b;
    minus[j] = a - b;
  }
  __syncwarp();
}

}  // namespace geokernels
