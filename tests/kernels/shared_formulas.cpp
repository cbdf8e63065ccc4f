// The formulas of csrc/core that the CPU and the GPU share, number by number, for
// tests/kernels/test_shared_formulas.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "core/aim.h"
#include "cuda/formulas.h"

namespace {

using namespace geokernels;

template <class T>
T dot(const T* x, const T* y, int64_t size) {
  T sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += x[i] * y[i];
  return sum;
}

// Turns two rows; whether another sweep has to look at them.
template <class T>
bool turn(T* up, T* down, int64_t size, double largest) {
  const device::Invisible<T> invisible(T(largest), 2);
  const device::Turn<T, T> by(dot(up, down, size), dot(up, up, size), dot(down, down, size), invisible);
  for (int64_t i = 0; i < size; ++i) {
    const T first = up[i], second = down[i];
    up[i] = by.up(first, second);
    down[i] = by.down(first, second);
  }
  return by.unsettled;
}

}  // namespace

#define EXPORT(T)                                                                                  \
  extern "C" int turn_##T(T* up, T* down, int64_t size, double largest) {                          \
    return turn(up, down, size, largest);                                                          \
  }                                                                                                \
  extern "C" void step_##T(double eps, double reach, const T* of, T* out) {                        \
    const device::Scaling<T> scaling(eps, reach);                                                  \
    const bool balanced = !(reach < std::numeric_limits<double>::infinity());                      \
    const auto step = scaling.step(balanced, of[0], of[1]);                                        \
    out[0] = step.scale, out[1] = step.log_scale, out[2] = scaling.wanted(balanced, of[1], of[2]); \
  }                                                                                                \
  extern "C" void weights_##T(const T* g, int64_t count, T* sum, T* difference) {                  \
    for (int64_t i = 0; i < count; ++i) {                                                          \
      const device::Angle<T> angle(g[i]);                                                          \
      sum[i] = angle.sum, difference[i] = angle.difference;                                        \
    }                                                                                              \
  }

EXPORT(float)
EXPORT(double)

// Whether an iteration that found these errors, and returned those, goes on: 1, or ends: 0.
extern "C" void stop(double tol, int64_t most, int64_t count, const double* found, const double* returned,
                     int* goes_on) {
  Aim aim(tol, most);
  for (int64_t done = 1; done <= count; ++done)
    goes_on[done - 1] =
        !aim.reached(found[done - 1], done) || !aim.satisfied(found[done - 1], returned[done - 1], done);
}
