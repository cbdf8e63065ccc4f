// Sums over some lanes of a warp of several numbers at once, where each lane gets the sums of a few.
//
// Lanes that differ in log2(Lanes) bits of their index, from Step on, hold Count numbers each. Two of them
// give each other the half that the other one keeps, then half of what is left, and so on: Count shuffles or
// so instead of Count log2(Lanes). An odd number leaves the upper lane one less.

#pragma once

#include "cuda/device.h"

namespace geokernels {

struct Sum {
  template <class T>
  __device__ static T neutral() {
    return 0;
  }
  template <class T>
  __device__ static T of(T x, T y) {
    return x + y;
  }
};

struct Largest {
  template <class T>
  __device__ static T neutral() {
    return -std::numeric_limits<T>::infinity();
  }
  template <class T>
  __device__ static T of(T x, T y) {
    return y > x ? y : x;
  }
};

// One number, over lanes that differ in the lowest bits; known to all of them.
template <int Lanes, class Operation, class T>
__device__ inline T over_lanes(T mine) {
#pragma unroll
  for (int bit = Lanes / 2; bit > 0; bit /= 2)
    mine = Operation::of(mine, T(__shfl_xor_sync(kAllLanes, mine, bit)));
  return mine;
}

template <int Lanes, int Step, int Count>
struct Shares {
  static constexpr int most() {
    int count = Count;
    for (int lanes = Lanes; lanes > 1; lanes /= 2) count = (count + 1) / 2;
    return count;
  }
  static constexpr int kMost = most();  // numbers of a lane, of which some lanes have fewer

  // This lane's numbers are `count` ones from `first` on.
  int first = 0, count;

  __device__ Shares() {
    int end = Count, kept = Count;
#pragma unroll
    for (int half = Lanes / 2; half > 0; half /= 2) {
      kept = (kept + 1) / 2;
      if (lane() & (half * Step))
        first += kept;
      else
        end = end < first + kept ? end : first + kept;
    }
    count = end > first ? end - first : 0;
  }

  // Of number i, which one of the lanes side by side has.
  template <class T>
  __device__ static T from_holder(T mine, int i) {
    static_assert(Step == 1);
    int found = 0, kept = Count;
#pragma unroll
    for (int half = Lanes / 2; half > 0; half /= 2) {
      kept = (kept + 1) / 2;
      if (i >= kept) found += half, i -= kept;
    }
    return __shfl_sync(kAllLanes, mine, found, Lanes);
  }

  // x[0], ..., x[kMost - 1] become this lane's.
  template <class Operation, class T, int Half = Lanes / 2, int Left = Count>
  __device__ static void out(T (&x)[Count]) {
    if constexpr (Half > 0) {
      constexpr int kept = (Left + 1) / 2;
      const bool upper = lane() & (Half * Step);
#pragma unroll
      for (int i = 0; i < kept; ++i) {
        const T late = kept + i < Left ? x[kept + i] : Operation::template neutral<T>();
        const T own = upper ? late : x[i], given = upper ? x[i] : late;
        x[i] = Operation::of(own, T(__shfl_xor_sync(kAllLanes, given, Half * Step)));
      }
      out<Operation, T, Half / 2, kept>(x);
    }
  }
};

}  // namespace geokernels
