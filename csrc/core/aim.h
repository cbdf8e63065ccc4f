// When an iteration ends.

#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/anywhere.h"

namespace geokernels {

// The largest number of T that is not above x: numbers of T are above both, or above neither.
template <class T>
GEOKERNELS_ANYWHERE T not_above(double x) {
  const T near = T(x);
  return double(near) > x ? std::nextafter(near, -std::numeric_limits<T>::infinity()) : near;
}

// The error at which an iteration stops. That of what is returned may be larger, as potentials are rounded:
// then the iteration goes on for as much less, while that helps, and at most as long again. It converges
// linearly, so that what is not reached by then is lost in rounding errors, and would be met by chance alone.
// T is what errors are compared in.
template <class T = double>
struct Aim {
  static constexpr int64_t kLeast = 8;  // iterations more, where a start was near
  double tol;
  T error;
  int64_t most;

  GEOKERNELS_ANYWHERE Aim(double tol, int64_t max_iter)
      : tol(tol), error(not_above<T>(tol)), most(max_iter) {}

  // NaN stops as well.
  GEOKERNELS_ANYWHERE bool reached(T found, int64_t done) const { return !(found > error) || done >= most; }

  GEOKERNELS_ANYWHERE bool satisfied(double found, double returned, int64_t done) {
    if (!(returned > tol) || done >= most || returned - found >= error) return true;
    error = not_above<T>(error - (returned - found));
    most = most < 2 * done + kLeast ? most : 2 * done + kLeast;
    return false;
  }
};

}  // namespace geokernels
