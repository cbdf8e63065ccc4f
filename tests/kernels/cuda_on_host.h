// Runs CUDA kernels on the host, thread by thread, for tests without a GPU.
//
// Included before a kernel's header, it gives meaning to the few names of CUDA that our kernels use. Every
// thread of a block is a stack of its own that runs until it waits: at __syncthreads for the block, at a
// shuffle or a matrix product for its warp (cuda_on_host_threads.h). Accesses to memory are watched
// (cuda_on_host_races.cpp).
//
// What this shows:
// - the values, for any of several orders of threads and blocks: ascending, descending, or by chance, with
//   another permutation after every barrier and several blocks side by side;
// - races: two accesses to the same byte, one of them a write, that no barrier orders, whatever the order in
// which
//   they happened here. __syncthreads orders a block and __syncwarp a warp; shuffles and products do not;
// - that nobody waits in vain, as where only half a warp shuffles, or for something else than the others;
// - reads of a block's memory that nobody has written, and accesses beyond its end.
// What it does not show: speed, limits of registers, what nvcc makes of the sources, a race in code that no
// test runs, and what the hardware's own units round.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cuda_on_host_copies.h"
#include "cuda_on_host_threads.h"

#define GEOKERNELS_CUDA_ON_HOST
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace cuda_on_host {

// What every lane of the warp shows the others.
template <class T>
const unsigned char (*show(const T& mine))[64] {
  static_assert(sizeof(T) <= 64);
  const Unwatched own;
  Warp& warp = own_warp();
  auto& shown = warp.shown[warp.gate.opened % 2];
  std::memcpy(shown[block.current % kLanes], &mine, sizeof(T));
  wait(warp.gate, "a shuffle or a product");
  return shown;
}

template <class T>
T read(const unsigned char (*shown)[64], int lane) {
  const Unwatched own;
  T found;
  std::memcpy(&found, shown[lane], sizeof(T));
  return found;
}

inline uint32_t round_to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return (bits + 0x1000) & ~uint32_t(0x1fff);  // to the nearest, a tie away from zero
}

// Sign, five bits of exponent from 2^-15 on, ten of fraction.
inline float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  float size = std::ldexp(float(fraction + (exponent ? 0x400 : 0)), (exponent ? exponent : 1) - 25);
  if (exponent == 0x1f)
    size = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  return bits >> 15 ? -size : size;
}

inline float toward_zero(double x) {
  const float near = float(x);
  return std::fabs(double(near)) > std::fabs(x) ? std::nextafter(near, 0.0f) : near;
}

// mma.m16n8k8 of tf32 by PTX's tables of who holds what. The sum of eight products and of what was there is
// exact here and then rounded toward zero, as measurements say of the hardware, which does not document it.
inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Fragment {
    float a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof(mine.a));
  std::memcpy(mine.b, b, sizeof(mine.b));
  const auto shown = show(mine);
  const int lane = block.current % kLanes;
  for (int e = 0; e < 4; ++e) {
    const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
    double sum = d[e];
    for (int k = 0; k < 8; ++k) {
      const Fragment left = read<Fragment>(shown, row % 8 * 4 + k % 4);
      const Fragment right = read<Fragment>(shown, column * 4 + k % 4);
      sum += double(left.a[row / 8 + k / 4 * 2]) * right.b[k / 4];
    }
    d[e] = toward_zero(sum);
  }
}

// mma.m16n8k16 of half precision, two numbers a register; rounded toward zero after every eight products.
template <class Decode>
void multiply_16_bits(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Decode& decode) {
  struct Fragment {
    uint32_t a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof(mine.a));
  std::memcpy(mine.b, b, sizeof(mine.b));
  const auto shown = show(mine);
  const auto number = [&](uint32_t pair, int k) { return double(decode(uint16_t(pair >> (k % 2 * 16)))); };
  const int lane = block.current % kLanes;
  for (int e = 0; e < 4; ++e) {
    const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
    for (int first = 0; first < 16; first += 8) {
      double sum = d[e];
      for (int k = first; k < first + 8; ++k) {
        const Fragment left = read<Fragment>(shown, row % 8 * 4 + k % 8 / 2);
        const Fragment right = read<Fragment>(shown, column * 4 + k % 8 / 2);
        sum += number(left.a[row / 8 + k / 8 * 2], k) * number(right.b[k / 8], k);
      }
      d[e] = toward_zero(sum);
    }
  }
}

inline float bfloat16_to_float(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof(x));
  return x;
}

inline void multiply_half(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_16_bits(d, a, b, half_to_float);
}
inline void multiply_bfloat16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_16_bits(d, a, b, bfloat16_to_float);
}

}  // namespace cuda_on_host

#define threadIdx cuda_on_host::thread_index
#define blockIdx cuda_on_host::block_index
#define blockDim cuda_on_host::block_size
#define gridDim cuda_on_host::grid_size

// Barriers know the line that calls them, so that a test may leave one out. Without it nobody agrees either.
#define GEOKERNELS_CALLED_FROM const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline int __syncthreads_and(int yes, GEOKERNELS_CALLED_FROM) {
  const cuda_on_host::Unwatched own;
  if (!cuda_on_host::counts_barrier(file, line)) return yes;
  cuda_on_host::Gate& gate = cuda_on_host::block.gate;
  const uint64_t now = gate.opened % 3;
  gate.agreed[(now + 1) % 3] = true;  // who comes this time has read the last but one
  gate.agreed[now] &= yes != 0;
  cuda_on_host::pass_block_barrier("__syncthreads_and");
  return gate.agreed[now];
}

inline void __syncthreads(GEOKERNELS_CALLED_FROM) {
  if (cuda_on_host::counts_barrier(file, line)) cuda_on_host::pass_block_barrier("__syncthreads");
}

inline void __syncwarp(GEOKERNELS_CALLED_FROM) {
  if (cuda_on_host::counts_barrier(file, line)) cuda_on_host::pass_warp_barrier();
}

template <class T>
T __shfl_xor_sync(unsigned mask, T mine, int lanes) {
  if (mask != 0xffffffffu) cuda_on_host::fail("a shuffle of part of a warp");
  const int from = (cuda_on_host::block.current % cuda_on_host::kLanes) ^ lanes;
  return cuda_on_host::read<T>(cuda_on_host::show(mine), from);
}

template <class T>
T __shfl_sync(unsigned mask, T mine, int from, int width = cuda_on_host::kLanes) {
  if (mask != 0xffffffffu) cuda_on_host::fail("a shuffle of part of a warp");
  const int first = cuda_on_host::block.current % cuda_on_host::kLanes / width * width;
  return cuda_on_host::read<T>(cuda_on_host::show(mine), first + from % width);
}
