// How much memory Sinkhorn's kernel matrices may take at once.

#pragma once

#include <cstdint>

namespace geokernels {

// Bytes; beyond them rows of the matrix are made from the costs in every sweep.
int64_t most_stored();

// For tests: a limit of their own.
void set_most_stored(int64_t bytes);

}  // namespace geokernels
