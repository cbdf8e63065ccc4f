// The threads of blocks on the host, for cuda_on_host.h: stacks that take turns, and what they wait for.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda_on_host_races.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace cuda_on_host {

constexpr size_t kStack = 128 * 1024, kFence = 64;
constexpr int kLanes = 32;
constexpr int kSideBySide = 3;  // blocks that are interleaved

[[noreturn]] inline void fail(const char* sentence) {
  std::fprintf(stderr, "cuda_on_host: %s\n", sentence);
  std::abort();
}

// Opens when everybody has come; then it is closed again.
struct Gate {
  int expected = 0, here = 0;
  uint64_t opened = 0;
  const char* what = nullptr;           // those who are here wait for
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
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
  bool started = false, finished = false;
  const Gate* waits = nullptr;
  uint64_t since = 0;
  uint32_t barriers = 0, warp_barriers = 0;  // passed

  bool can_go() const { return !finished && !(waits && waits->opened == since); }
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> memory;
  Gate gate;
  int current = 0, left = 0;
  unsigned index = 0;
  uint32_t number = 0;  // over all launches
};

inline Block block;  // the one whose turn it is
inline std::function<void()> body;
inline jmp_buf scheduler;
inline dim3 thread_index, block_index, block_size, grid_size;

inline unsigned char* block_memory() { return block.memory.data(); }
inline Thread& self() { return block.threads[block.current]; }
inline Warp& own_warp() { return block.warps[block.current / kLanes]; }

inline void wait(Gate& gate, const char* what) {
  const Unwatched own;
  if (gate.here > 0 && gate.what != what) fail("threads wait in one place for different things");
  gate.what = what;
  if (++gate.here == gate.expected) {
    gate.here = 0;
    ++gate.opened;
    return;
  }
  self().waits = &gate;
  self().since = gate.opened;
  if (_setjmp(self().resume) == 0) _longjmp(scheduler, 1);
}

// Barriers, which order memory where other waiting does not.
inline void pass_block_barrier(const char* what) {
  const Unwatched own;
  wait(block.gate, what);
  watched.barriers = ++self().barriers;
}
inline void pass_warp_barrier() {
  const Unwatched own;
  wait(own_warp().gate, "__syncwarp");
  watched.warp_barriers = ++self().warp_barriers;
}

inline void enter() {
  watched.kernel = true;
  body();
  watched.kernel = false;
  self().finished = true;
  --block.left;
  _longjmp(scheduler, 1);
}

inline void resume(int index) {
  Thread& thread = block.threads[index];
  block.current = index;
  thread_index.x = watched.thread = unsigned(index);
  watched.barriers = thread.barriers, watched.warp_barriers = thread.warp_barriers;
  watched.stack = thread.stack.get();
  thread.waits = nullptr;
  if (_setjmp(scheduler) != 0) return;
  if (thread.started) _longjmp(thread.resume, 1);
  thread.started = true;
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = thread.stack.get();
  thread.start.uc_stack.ss_size = kStack;
  thread.start.uc_link = nullptr;
  makecontext(&thread.start, enter, 0);
  setcontext(&thread.start);
}

// Who gets a turn when: in ascending or descending order, block after block; or by chance, a new permutation
// each time, blocks interleaved, warps now and then as far ahead as they get.
class Schedule {
 public:
  Schedule(int blocks, int threads, int order)
      : side_by_side(order > 1 ? kSideBySide : 1), by_chance(order > 1), chance(unsigned(order)) {
    turns = permuted(blocks, order);
    lanes = permuted(threads, order);
  }

  // Gives every thread of `block` that can go on a turn; whether there was one.
  bool advance() {
    if (!by_chance) return pass(lanes);
    bool moved = false;
    for (const int warp : permuted(int(block.warps.size()), 2)) {
      const bool ahead = chance() % 2;
      do {
        std::vector<int> own = permuted(block.warps[warp].gate.expected, 2);
        for (int& lane : own) lane += warp * kLanes;
        if (!pass(own)) break;
        moved = true;
      } while (ahead);
    }
    return moved;
  }

  const size_t side_by_side;
  std::vector<int> turns;  // of blocks

 private:
  std::vector<int> permuted(int count, int order) {
    std::vector<int> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    if (order == 1) std::reverse(numbers.begin(), numbers.end());
    if (order > 1) std::shuffle(numbers.begin(), numbers.end(), chance);
    return numbers;
  }

  static bool pass(const std::vector<int>& indices) {
    bool moved = false;
    for (int index : indices)
      if (block.threads[index].can_go()) resume(index), moved = true;
    return moved;
  }

  const bool by_chance;
  std::mt19937 chance;
  std::vector<int> lanes;
};

// `block` becomes one that begins.
inline void begin_block(int index, int threads, size_t shared) {
  static uint32_t begun = 0;
  block.threads.resize(threads);
  for (Thread& thread : block.threads) {
    thread.started = thread.finished = false, thread.waits = nullptr;
    thread.barriers = thread.warp_barriers = 0;
  }
  block.warps.assign((threads + kLanes - 1) / kLanes, {});
  for (size_t w = 0; w < block.warps.size(); ++w)
    block.warps[w].gate.expected = std::min<int>(kLanes, threads - int(w) * kLanes);
  block.gate = {};
  block.gate.expected = block.left = threads;
  block.memory.assign(shared + kFence, 0xff);  // NaN, for numbers of any width
  block.index = unsigned(index);
  block.number = ++begun;
}

inline void turn_to_block(size_t shared) {
  block_index.x = block.index;
  watched.block = block.number;
  watched.memory = block.memory.data(), watched.memory_size = shared;
}

inline void end_block(size_t shared) {
  for (size_t i = shared; i < block.memory.size(); ++i)
    if (block.memory[i] != 0xff) fail("a kernel wrote beyond the memory of its block");
  forget_block();
}

// Calls kernel() as every thread of every block.
inline void launch(int blocks, int threads, size_t shared, int order, std::function<void()> kernel) {
  static std::vector<Block> at_rest;  // their stacks are used again
  body = std::move(kernel);
  grid_size.x = unsigned(blocks);
  block_size.x = unsigned(threads);
  watched.stack_size = kStack;
  Schedule schedule(blocks, threads, order);
  std::vector<Block> running;
  const auto take_turns = [&](Block& one, auto use) { std::swap(block, one), use(), std::swap(block, one); };
  for (int next = 0; next < blocks || !running.empty();) {
    while (running.size() < schedule.side_by_side && next < blocks) {
      if (at_rest.empty()) at_rest.emplace_back();
      running.push_back(std::move(at_rest.back()));
      at_rest.pop_back();
      take_turns(running.back(), [&] {
        begin_block(schedule.turns[next], threads, shared);
        if (next++ == 0) watched.first = block.number;
      });
    }
    bool moved = false;
    for (Block& one : running)
      take_turns(one, [&] {
        turn_to_block(shared);
        moved |= schedule.advance();
        if (block.left == 0) end_block(shared);
      });
    if (!moved) fail("threads wait for others that will never come");
    for (size_t i = running.size(); i-- > 0;)
      if (running[i].left == 0) {
        at_rest.push_back(std::move(running[i]));
        running.erase(running.begin() + long(i));
      }
  }
  forget_device();
}

}  // namespace cuda_on_host
