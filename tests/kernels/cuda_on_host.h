// Runs CUDA kernels on the host, thread by thread, for tests without a GPU.
//
// Included before a kernel's header, it gives meaning to the few names of CUDA that our kernels use. Every
// thread of a block is a stack of its own that runs until it waits: at __syncthreads for the block, at a
// shuffle or a matrix product for its warp. Blocks run one after another.
//
// What this shows: the values, for any of several orders of the threads - a race between two barriers
// gives other bits in another order - and that nobody waits in vain, as where only half a warp shuffles.
// Memory of the block is filled with NaN beforehand, and its end is watched. What it does not show: speed,
// limits of registers, memory that is only visible late.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#define GEOKERNELS_CUDA_ON_HOST
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace cuda_on_host {

constexpr size_t kStack = 128 * 1024, kFence = 64;
constexpr int kLanes = 32;

[[noreturn]] inline void fail(const char* sentence) {
  std::fprintf(stderr, "cuda_on_host: %s\n", sentence);
  std::abort();
}

// Opens when everybody has come; then it is closed again.
struct Gate {
  int expected = 0, here = 0;
  uint64_t opened = 0;
  bool agreed[3] = {true, true, true};  // whether all who came said yes: this time, the next, the last
};

struct Warp {
  Gate gate;
  // what lanes show each other; two sets in turn, so that a fast lane does not overwrite what a slow one
  // reads
  unsigned char shown[2][kLanes][64];
};

struct Thread {
  ucontext_t start;
  jmp_buf resume;
  std::vector<unsigned char> stack = std::vector<unsigned char>(kStack);
  bool started = false, finished = false;
  const Gate* waits = nullptr;
  uint64_t since = 0;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> memory;
  Gate gate;
  std::function<void()> kernel;
  jmp_buf scheduler;
  int current = 0;
};

inline Block block;
inline dim3 thread_index, block_index, block_size, grid_size;

inline unsigned char* block_memory() { return block.memory.data(); }

inline void wait(Gate& gate) {
  if (++gate.here == gate.expected) {
    gate.here = 0;
    ++gate.opened;
    return;
  }
  Thread& self = block.threads[block.current];
  self.waits = &gate;
  self.since = gate.opened;
  if (_setjmp(self.resume) == 0) _longjmp(block.scheduler, 1);
}

inline void enter() {
  block.kernel();
  block.threads[block.current].finished = true;
  _longjmp(block.scheduler, 1);
}

inline void resume(int index) {
  Thread& thread = block.threads[index];
  block.current = index;
  thread_index.x = unsigned(index);
  thread.waits = nullptr;
  if (_setjmp(block.scheduler) != 0) return;
  if (thread.started) _longjmp(thread.resume, 1);
  thread.started = true;
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = thread.stack.data();
  thread.start.uc_stack.ss_size = thread.stack.size();
  thread.start.uc_link = nullptr;
  makecontext(&thread.start, enter, 0);
  setcontext(&thread.start);
}

// In which order threads get their turns: 0 ascending, 1 descending, others by chance.
inline std::vector<int> order_of(int count, int order) {
  std::vector<int> turns(count);
  std::iota(turns.begin(), turns.end(), 0);
  if (order == 1) std::reverse(turns.begin(), turns.end());
  if (order > 1) std::shuffle(turns.begin(), turns.end(), std::mt19937(unsigned(order)));
  return turns;
}

inline void run_block(int threads, size_t shared, int order) {
  block.threads.resize(threads);
  for (Thread& thread : block.threads) thread.started = thread.finished = false, thread.waits = nullptr;
  block.warps.assign((threads + kLanes - 1) / kLanes, {});
  for (size_t w = 0; w < block.warps.size(); ++w)
    block.warps[w].gate.expected = std::min<int>(kLanes, threads - int(w) * kLanes);
  block.gate = {threads};
  block.memory.assign(shared + kFence, 0xff);  // NaN, for numbers of any width
  const std::vector<int> turns = order_of(threads, order);
  for (int left = threads; left > 0;) {
    bool moved = false;
    for (int index : turns) {
      Thread& thread = block.threads[index];
      if (thread.finished || (thread.waits && thread.waits->opened == thread.since)) continue;
      resume(index);
      moved = true;
      left -= thread.finished;
    }
    if (!moved) fail("threads wait for others that will never come");
  }
  for (size_t i = shared; i < block.memory.size(); ++i)
    if (block.memory[i] != 0xff) fail("a kernel wrote beyond the memory of its block");
}

// Calls kernel() as every thread of every block.
inline void launch(int blocks, int threads, size_t shared, int order, std::function<void()> kernel) {
  block.kernel = std::move(kernel);
  grid_size.x = unsigned(blocks);
  block_size.x = unsigned(threads);
  for (int b = 0; b < blocks; ++b) {
    block_index.x = unsigned(b);
    run_block(threads, shared, order);
  }
}

// What every lane of the warp shows the others.
template <class T>
const unsigned char (*show(const T& mine))[64] {
  static_assert(sizeof(T) <= 64);
  Warp& own = block.warps[block.current / kLanes];
  auto& shown = own.shown[own.gate.opened % 2];
  std::memcpy(shown[block.current % kLanes], &mine, sizeof(T));
  wait(own.gate);
  return shown;
}

template <class T>
T read(const unsigned char (*shown)[64], int lane) {
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

}  // namespace cuda_on_host

#define threadIdx cuda_on_host::thread_index
#define blockIdx cuda_on_host::block_index
#define blockDim cuda_on_host::block_size
#define gridDim cuda_on_host::grid_size

inline int __syncthreads_and(int yes) {
  cuda_on_host::Gate& gate = cuda_on_host::block.gate;
  const uint64_t now = gate.opened % 3;
  gate.agreed[(now + 1) % 3] = true;  // who comes this time has read the last but one
  gate.agreed[now] &= yes != 0;
  cuda_on_host::wait(gate);
  return gate.agreed[now];
}

inline void __syncthreads() { cuda_on_host::wait(cuda_on_host::block.gate); }

inline void __syncwarp() {
  cuda_on_host::wait(cuda_on_host::block.warps[cuda_on_host::block.current / cuda_on_host::kLanes].gate);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T mine, int lanes) {
  if (mask != 0xffffffffu) cuda_on_host::fail("a shuffle of part of a warp");
  const int from = (cuda_on_host::block.current % cuda_on_host::kLanes) ^ lanes;
  return cuda_on_host::read<T>(cuda_on_host::show(mine), from);
}

template <class T>
T __shfl_sync(unsigned mask, T mine, int from) {
  if (mask != 0xffffffffu) cuda_on_host::fail("a shuffle of part of a warp");
  return cuda_on_host::read<T>(cuda_on_host::show(mine), from % cuda_on_host::kLanes);
}
