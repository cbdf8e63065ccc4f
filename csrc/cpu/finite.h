// Whether a result is finite, without a call of PyTorch, which would take longer than a small problem's
// kernel.

#pragma once

#include <cstdint>

namespace geokernels {

// Whether `count` numbers from an address on, float64 if wide and else float32, are free of NaN and
// infinities.
bool all_finite(uintptr_t address, int64_t count, bool wide);

// Whether values, potentials and errors of so many transport problems are finite, and no error above tol.
bool is_solved(uintptr_t value, uintptr_t error, int64_t count, uintptr_t f, int64_t rows, uintptr_t g,
               int64_t columns, double tol, bool wide);

}  // namespace geokernels
