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

}  // namespace geokernels
