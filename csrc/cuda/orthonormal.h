// Orthonormal rows and triangular coefficients of feature rows (QR of their transpose), one block.
//
//   x_n = sum_k a[k, n] q_k      q_k orthonormal
//
// Gram-Schmidt by rows, repeated until nothing cancels, with the rules of cpu/subspace_kernel.h: a row of
// which only rounding is left adds nothing to q. As many rows as there are warps are under way, each in the
// registers of its warp. Each loses what lies along the rows before them by itself; among themselves they
// take turns, one barrier each. The order of every sum depends on the sizes and the number of warps.

#pragma once

#include <cmath>

#include "cuda/device.h"

namespace geokernels {

constexpr int kUnit = 128;  // features that a warp loads at once; rows are padded to whole units
constexpr int kKnown = 4;   // rows of q whose coefficients are found together
template <class T>
constexpr int kMostFeatures = 4096 / sizeof(T);  // of a row in registers

__host__ __device__ constexpr int64_t whole_units(int64_t features) {
  return (features + kUnit - 1) / kUnit * kUnit;
}

// What one load instruction can bring a thread.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T at[kCount];
};

template <class T>
__device__ inline const Pack<T>& pack(const T* x) {
  return *reinterpret_cast<const Pack<T>*>(x);
}

template <class T>
__device__ inline Pack<T>& pack(T* x) {
  return *reinterpret_cast<Pack<T>*>(x);
}

// Whether rows `apart` begin on boundaries of 16 bytes.
template <class T>
__device__ inline bool in_packs(const T* x, int64_t apart) {
  return (reinterpret_cast<uintptr_t>(x) % 16 | apart % Pack<T>::kCount) == 0;
}

// The features of one unit that a lane has, as packs; pack h of them begins at feature offset(h) of the unit.
template <class T>
struct Share {
  static constexpr int kCount = kUnit / kWarp, kPacks = kCount / Pack<T>::kCount;
  T at[kCount];

  Share() = default;
  __device__ explicit Share(const T* unit) { load(unit); }

  __device__ static int offset(int h) { return (h * kWarp + lane()) * Pack<T>::kCount; }

  __device__ void load(const T* unit) {
#pragma unroll
    for (int h = 0; h < kPacks; ++h) {
      const Pack<T> found = pack(unit + offset(h));
#pragma unroll
      for (int i = 0; i < Pack<T>::kCount; ++i) at[h * Pack<T>::kCount + i] = found.at[i];
    }
  }

  __device__ void store(T* unit) const {
#pragma unroll
    for (int h = 0; h < kPacks; ++h) {
      Pack<T> given;
#pragma unroll
      for (int i = 0; i < Pack<T>::kCount; ++i) given.at[i] = at[h * Pack<T>::kCount + i];
      pack(unit + offset(h)) = given;
    }
  }

  // The same where only `left` features of the unit are there, and may not lie on boundaries of 16 bytes.
  __device__ void load_some(const T* unit, int64_t left, bool packs) {
    if (packs && left >= kUnit) return load(unit);
#pragma unroll
    for (int e = 0; e < kCount; ++e) at[e] = feature(e) < left ? unit[feature(e)] : T(0);
  }

  __device__ void store_some(T* unit, int64_t left, bool packs) const {
    if (packs && left >= kUnit) return store(unit);
#pragma unroll
    for (int e = 0; e < kCount; ++e)
      if (feature(e) < left) unit[feature(e)] = at[e];
  }

  __device__ void clear() {
#pragma unroll
    for (T& x : at) x = 0;
  }

  __device__ void add(T times, const Share& other) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) at[e] += times * other.at[e];
  }

  // This lane's part of the inner product.
  __device__ T product(const Share& other) const {
    T total = 0;
#pragma unroll
    for (int e = 0; e < kCount; ++e) total += at[e] * other.at[e];
    return total;
  }

  __device__ void scale(T factor) {
#pragma unroll
    for (T& x : at) x *= factor;
  }

 private:
  __device__ static int feature(int e) { return offset(e / Pack<T>::kCount) + e % Pack<T>::kCount; }
};

// A row of up to kMostFeatures<T> in the registers of a warp.
template <class T>
struct WarpRow {
  static constexpr int kUnits = kMostFeatures<T> / kUnit;
  Share<T> unit[kUnits];

  // f(the share of unit u, u) for those that are there.
  template <class F>
  __device__ void each(int units, F f) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      if (u < units) f(unit[u], u);
  }

  __device__ void load(const T* row, int units, T factor) {
    each(units, [&](Share<T>& own, int u) {
      own.load(row + u * kUnit);
      own.scale(factor);
    });
  }

  __device__ void store(T* row, int units, T factor) {
    each(units, [&](Share<T>& own, int u) {
      own.scale(factor);
      own.store(row + u * kUnit);
    });
  }

  __device__ T length(int units) {
    T total = 0;
    each(units, [&](Share<T>& own, int) { total += own.product(own); });
    return std::sqrt(warp_sum(total));
  }

  // This lane's part of <q, this row>.
  __device__ T part_of_product(const T* q, int units) {
    T total = 0;
    each(units, [&](Share<T>& own, int u) { total += own.product(Share<T>(q + u * kUnit)); });
    return total;
  }

  __device__ void subtract(T times, const T* q, int units) {
    each(units, [&](Share<T>& own, int u) { own.add(-times, Share<T>(q + u * kUnit)); });
  }
};

// The orthonormal rows so far, and their coefficients.
template <class T>
struct Orthonormal {
  T* q;        // [N, stride]
  int stride;  // whole units
  T* a;        // [most, ld]
  int ld, most;

  __device__ int units() const { return stride / kUnit; }

  // Takes from row n of x what lies along rows [first, last) of q, and adds the coefficients.
  __device__ void remove(WarpRow<T>& row, int n, int first, int last) const {
#pragma unroll 1
    for (int k = first; k < last; k += kKnown) {
      T sums[kKnown] = {};
#pragma unroll
      for (int r = 0; r < kKnown; ++r)
        if (k + r < last) sums[r] = row.part_of_product(q + (k + r) * stride, units());
      const T sum = sum_each<kKnown>(sums);
      if (lane() < kKnown && k + lane() < last) a[(k + lane()) * ld + n] += sum;
#pragma unroll
      for (int r = 0; r < kKnown; ++r) {
        const T times = __shfl_sync(kAllLanes, sum, r);
        if (k + r < last) row.subtract(times, q + (k + r) * stride, units());
      }
    }
    __syncwarp();  // another lane may add to a coefficient next
  }

  // Makes row n orthogonal to the first `count` rows of q, of which it has met `met`; returns the length that
  // is left of `whole`, or 0 where only rounding is. Before its turn it meets each but once.
  __device__ T clear(WarpRow<T>& row, int n, T whole, int met, int count, bool its_turn) const {
    T last = whole, left = whole;
    for (int pass = 0; count > 0; ++pass) {
      remove(row, n, pass > 0 ? 0 : met, count);
      if (!its_turn) return whole;
      last = left;
      left = row.length(units());
      // a length that halves has cancelled: what is left is orthogonal only after another round
      if (left > last / 2 || pass == kAgain) break;
    }
    const bool noise = whole < infinity<T>() && left <= std::numeric_limits<T>::epsilon() * whole;
    return noise || count == most ? T(0) : left;
  }

 private:
  static constexpr int kAgain = 3;
};

// N rows in into.q, times `factor`, to as many orthonormal ones as the return value says, and coefficients
// into.a, zero on entry. counts: [2] spare.
template <class T>
__device__ int orthonormalise(const Orthonormal<T>& into, int N, T factor, int* counts) {
  const int warps = int(blockDim.x) / kWarp, units = into.units();
  int count = 0;
  for (int first = 0; first < N; first += warps) {
    const int n = first + warp();
    WarpRow<T> row;
    T whole = 0;
    if (n < N) {
      row.load(into.q + n * into.stride, units, factor);
      whole = row.length(units);
    }
    int met = 0;
#pragma unroll 1
    for (int turn = 0; turn < warps && first + turn < N; ++turn) {
      T length = 0;
      if (warp() >= turn && n < N) length = into.clear(row, n, whole, met, count, warp() == turn);
      met = count;
      if (warp() == turn) {
        const bool added = length != 0;
        if (added) row.store(into.q + count * into.stride, units, 1 / length);
        if (added && lane() == 0) into.a[count * into.ld + n] += length;
        if (lane() == 0) counts[turn % 2] = count + added;
      }
      __syncthreads();
      count = counts[turn % 2];
    }
  }
  return count;
}

}  // namespace geokernels
