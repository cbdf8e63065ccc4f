// Assignment without the dispatcher, whose layers take as long as a small problem.

#pragma once

#include <cstdint>

namespace geokernels {

// From `problems` costs [rows, columns] at an address, float64 if wide and else float32, to their columns at
// another. 0; -1 where a problem has no assignment; -2 where a cost is NaN or -inf.
int64_t assign_directly(uintptr_t cost, bool wide, int64_t problems, int64_t rows, int64_t columns,
                        uintptr_t chosen);

}  // namespace geokernels
