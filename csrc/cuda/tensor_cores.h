// Products on the tensor cores with the accuracy of float32.
//
// A float32 is split into two numbers of tf32 (11 significant bits each); three products of these, small
// parts first, leave out only the smallest. Half precision, bfloat16 as well, is multiplied as it is.
//
// The cores round the sums that they add to toward zero (H. Ootomo and R. Yokota, 2022), so that a long chain
// of them drifts: by 2^-17 of nearly parallel vectors of 768 numbers. Their sums therefore begin at zero for
// every 8 numbers, or 32 of half precision, and are added up outside, to the nearest. Relative to |x||y| an
// inner product is off by 2^-21 or so.

#pragma once

#include "cuda/device.h"

namespace geokernels {

#ifdef GEOKERNELS_CUDA_ON_HOST
using cuda_on_host::half_to_float;
using cuda_on_host::multiply_bfloat16;
using cuda_on_host::multiply_half;
using cuda_on_host::multiply_tf32;
using cuda_on_host::round_to_tf32;
#else
// The nearest number of tf32, as the bits of a float32.
__device__ inline uint32_t round_to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

__device__ inline float half_to_float(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

// d += a b for a of 16 x 8 and b of 8 x 8, held by a warp as PTX lays out mma.m16n8k8: with lane = 4 r + c,
// a = (r, c), (r + 8, c), (r, c + 4), (r + 8, c + 4), b = (c, r), (c + 4, r),
// d = (r, 2 c), (r, 2 c + 1), (r + 8, 2 c), (r + 8, 2 c + 1).
__device__ inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b for a of 16 x 16 and b of 16 x 8, a register holding two numbers of neighbouring k:
// a = (r, 2 c), (r + 8, 2 c), (r, 2 c + 8), (r + 8, 2 c + 8), b = (2 c, r), (2 c + 8, r).
#define GEOKERNELS_MULTIPLY(name, type)                                                                   \
  __device__ inline void multiply_##name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                   \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                             \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                     \
  }
GEOKERNELS_MULTIPLY(half, "f16")
GEOKERNELS_MULTIPLY(bfloat16, "bf16")
#undef GEOKERNELS_MULTIPLY
#endif

// Numbers of a fragment as sums of two of tf32.
template <int Count>
struct Fragment {
  uint32_t large[Count], small[Count];

  __device__ Fragment() {}
  __device__ explicit Fragment(const float (&x)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      large[i] = round_to_tf32(x[i]);
      float rounded;
      memcpy(&rounded, &large[i], sizeof(rounded));
      small[i] = round_to_tf32(x[i] - rounded);
    }
  }
};

__device__ inline void add_to(float (&d)[4], const float (&sum)[4]) {
#pragma unroll
  for (int e = 0; e < 4; ++e) d[e] += sum[e];
}

__device__ inline void add_product(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
  float sum[4] = {};
  multiply_tf32(sum, a.small, b.large);
  multiply_tf32(sum, a.large, b.small);
  multiply_tf32(sum, a.large, b.large);
  add_to(d, sum);
}

}  // namespace geokernels
