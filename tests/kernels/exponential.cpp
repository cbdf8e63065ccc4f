#define GEOKERNELS_KERNEL "exponential_kernel.h"
#include "cpu/each_level.h"

extern "C" void map_float(const float* x, float* y, int64_t count, bool logarithm, const char* level) {
  geokernels::set_level(level);
  GEOKERNELS_AT_LEVEL(map<float>, x, y, count, logarithm);
}

extern "C" void map_double(const double* x, double* y, int64_t count, bool logarithm, const char* level) {
  geokernels::set_level(level);
  GEOKERNELS_AT_LEVEL(map<double>, x, y, count, logarithm);
}
