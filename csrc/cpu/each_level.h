// Compiles the file named by GEOKERNELS_KERNEL once for every SIMD level.
//
// A kernel file (cpu/<family>_kernel.h) has no include guard and puts everything into
// namespace geokernels::GEOKERNELS_LEVEL. It includes the kernel files that it builds on; everything of core/
// that has no include guard is there (cpu/one_level.h). Headers with a guard must be included before this
// one: an inline function that is first seen inside a level could be compiled to instructions the machine
// lacks. Which copy runs is decided in cpu/level.h.
//
// GEOKERNELS_HALF_VECTORS, defined before, has the avx512 level compute on vectors of half its width, for
// kernels whose rows are so few that whole ones would stay half empty. They are in a namespace of their own:
// two widths under one name would be one function to the linker.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/padding.h"
#include "core/watch.h"
#include "core/workspace.h"
#include "cpu/level.h"

#ifndef GEOKERNELS_KERNEL
#error "define GEOKERNELS_KERNEL as the kernel file before including cpu/each_level.h"
#endif

#ifdef GEOKERNELS_HALF_VECTORS
#define GEOKERNELS_AVX512 avx512_half
#define GEOKERNELS_AVX512_BYTES 32
#else
#define GEOKERNELS_AVX512 avx512
#define GEOKERNELS_AVX512_BYTES 64
#endif

#define GEOKERNELS_LEVEL baseline
#define GEOKERNELS_VECTOR_BYTES 16
#if defined(__aarch64__)
#define GEOKERNELS_REGISTERS 32
#else
#define GEOKERNELS_REGISTERS 16
#endif
#include "cpu/one_level.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define GEOKERNELS_LEVEL avx2
#define GEOKERNELS_VECTOR_BYTES 32
#define GEOKERNELS_REGISTERS 16
#include "cpu/one_level.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define GEOKERNELS_LEVEL GEOKERNELS_AVX512
#define GEOKERNELS_VECTOR_BYTES GEOKERNELS_AVX512_BYTES
#define GEOKERNELS_REGISTERS 32
#include "cpu/one_level.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
