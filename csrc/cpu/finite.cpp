// NaN and infinities are the numbers whose exponent is all ones.

#include "cpu/finite.h"

#include <cstring>

namespace geokernels {
namespace {

template <class Bits>
bool no_exponent_is(Bits ones, uintptr_t address, int64_t count) {
  const char* at = reinterpret_cast<const char*>(address);
  Bits found = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, at + i * sizeof(Bits), sizeof(Bits));
    found |= (bits & ones) == ones;
  }
  return !found;
}

}  // namespace

bool all_finite(uintptr_t address, int64_t count, bool wide) {
  return wide ? no_exponent_is<uint64_t>(0x7ff0000000000000, address, count)
              : no_exponent_is<uint32_t>(0x7f800000, address, count);
}

bool is_solved(uintptr_t value, uintptr_t error, int64_t count, uintptr_t f, int64_t rows, uintptr_t g,
               int64_t columns, double tol, bool wide) {
  for (int64_t k = 0; k < count; ++k) {
    const double found =
        wide ? reinterpret_cast<const double*>(error)[k] : reinterpret_cast<const float*>(error)[k];
    if (!(found <= tol)) return false;
  }
  return all_finite(value, count, wide) && all_finite(f, rows, wide) && all_finite(g, columns, wide);
}

}  // namespace geokernels
