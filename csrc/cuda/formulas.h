// The formulas that the kernels of the CPU and the GPU share, on single numbers.

#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/anywhere.h"

namespace geokernels::device {

template <class T>
GEOKERNELS_ANYWHERE inline T root(T x) {
  return std::sqrt(x);
}

template <class T>
GEOKERNELS_ANYWHERE inline T exp(T x) {
  return std::exp(x);
}

template <class T>
GEOKERNELS_ANYWHERE inline T log(T x) {
  return std::log(x);
}

}  // namespace geokernels::device

#define GEOKERNELS_LEVEL device
#include "core/path_formulas.h"
#include "core/rotation.h"
#include "core/scaling.h"
#include "core/transport_density.h"
#undef GEOKERNELS_LEVEL
