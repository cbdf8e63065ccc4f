// Compiles the file named by GEOKERNELS_KERNEL once for every SIMD level.
//
// A kernel file (cpu/<family>_kernel.h) has no include guard and puts everything into
// namespace geokernels::GEOKERNELS_LEVEL. Standard headers must be included before this one: a
// function of theirs that was first seen inside a level could be emitted with instructions the
// machine lacks. Which copy runs is decided in cpu/level.h.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/watch.h"
#include "core/workspace.h"
#include "cpu/level.h"

#ifndef GEOKERNELS_KERNEL
#error "define GEOKERNELS_KERNEL as the kernel file before including cpu/each_level.h"
#endif

#define GEOKERNELS_LEVEL baseline
#define GEOKERNELS_VECTOR_BYTES 16
#include "core/simd.h"
#include GEOKERNELS_KERNEL
#undef GEOKERNELS_LEVEL
#undef GEOKERNELS_VECTOR_BYTES

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define GEOKERNELS_LEVEL avx2
#define GEOKERNELS_VECTOR_BYTES 32
#include "core/simd.h"
#include GEOKERNELS_KERNEL
#undef GEOKERNELS_LEVEL
#undef GEOKERNELS_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define GEOKERNELS_LEVEL avx512
#define GEOKERNELS_VECTOR_BYTES 64
#include "core/simd.h"
#include GEOKERNELS_KERNEL
#undef GEOKERNELS_LEVEL
#undef GEOKERNELS_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
