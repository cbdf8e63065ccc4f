// Races between the threads of a kernel that runs on the host: cuda_on_host.h.
//
// With -fsanitize=thread a compiler calls __tsan_read4(address) and the like at each access to memory that
// others may see. ThreadSanitizer's own runtime follows locks and atomics; these functions take its place and
// follow what CUDA promises: __syncthreads orders the accesses of a block, __syncwarp those of a warp, and
// nothing orders those of two blocks. Shuffles and products of matrices order nothing. Two accesses of
// different threads to the same byte that nothing orders, one of them a write, are a race, in whatever order
// they happened here: the process ends with a sentence. So does it where the memory of a block is read or
// written beyond its end, or read where nobody has written.
//
// With barriers alone, the last write and the reads since the last barrier say all there is to know: no race
// that a run's accesses contain is missed. What a run does not execute is not seen.

#include "cuda_on_host_races.h"

#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cuda_on_host {
namespace {

constexpr uint32_t kLanes = 32;

struct Access {
  uint32_t block = 0;  // none so far
  uint32_t thread = 0, barriers = 0, warp_barriers = 0;
  const void* code = nullptr;

  uint32_t warp() const { return thread / kLanes; }
  bool counts() const { return block >= watched.first; }
};

// What is known of four bytes; of each of them once one was accessed alone.
struct Cell {
  Access write, read;   // the last ones
  uint32_t lanes = 0;   // of the last reader's warp, since its last barrier
  bool warps = false;   // whether several have read since the block's last barrier
  bool blocks = false;  // whether several have read
  std::unique_ptr<std::array<Cell, 4>> bytes;

  Cell() = default;
  Cell(const Cell& other) { *this = other; }
  Cell& operator=(const Cell& other) {
    write = other.write, read = other.read, lanes = other.lanes, warps = other.warps, blocks = other.blocks;
    return *this;
  }
};

using Page = std::array<Cell, 1024>;  // of 4 KiB
std::unordered_map<uintptr_t, std::unique_ptr<Page>> device;
std::unordered_map<uint32_t, std::vector<Cell>> shared;  // by block
std::vector<Cell>* shared_now = nullptr;
uint32_t shared_of = 0;

std::set<std::pair<std::string_view, int>> reached;  // barriers, by file and line
std::pair<std::string, int> left_out;

// Where in the sources, as far as it is known.
void print_line(const void* code) {
  Dl_info found;
  if (left_out.second > 0) return;  // nobody reads it then
  if (!dladdr(code, &found) || !found.dli_fname) return;
  char command[4096];
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(found.dli_fbase) - 1;
  std::snprintf(command, sizeof(command), "addr2line -Cfpe '%s' %#tx >&2", found.dli_fname, offset);
  std::fflush(stderr);
  if (std::system(command) != 0) std::fprintf(stderr, "%s + %#tx\n", found.dli_fname, offset);
}

std::string name(const void* address) {
  const auto* at = static_cast<const unsigned char*>(address);
  if (at >= watched.memory && at < watched.memory + watched.memory_size)
    return "byte " + std::to_string(at - watched.memory) + " of the memory of a block";
  char text[32];
  std::snprintf(text, sizeof(text), "%p in device memory", address);
  return text;
}

[[noreturn]] void fail(const char* what, const void* address, const Access& now, const Access* before,
                       const char* did) {
  std::fprintf(stderr, "cuda_on_host: %s: thread %u of block %u, at %s", what, now.thread,
               now.block - watched.first, name(address).c_str());
  if (before)
    std::fprintf(stderr, ", which thread %u of block %u %s", before->thread, before->block - watched.first,
                 did);
  std::fprintf(stderr, "\n");
  print_line(now.code);
  if (before) print_line(before->code);
  std::abort();
}

// Whether nothing lies between two accesses of this launch.
bool race(const Access& before, const Access& now) {
  if (!before.counts()) return false;
  if (before.block != now.block) return true;
  if (before.barriers != now.barriers || before.thread == now.thread) return false;
  return before.warp() != now.warp() || before.warp_barriers == now.warp_barriers;
}

void take_read(Cell& cell, const Access& now, const void* address) {
  if (race(cell.write, now)) fail("a race, in reading", address, now, &cell.write, "wrote");
  Access& last = cell.read;
  const uint32_t own = 1u << now.thread % kLanes;
  if (!last.counts()) cell.blocks = false;
  if (last.counts() && last.block != now.block) cell.blocks = true;
  if (last.block != now.block || last.barriers != now.barriers)
    cell.warps = false, cell.lanes = 0;
  else if (last.warp() != now.warp())
    cell.warps = true, cell.lanes = 0;
  else if (last.warp_barriers != now.warp_barriers)
    cell.lanes = 0;
  cell.lanes |= own;
  last = now;
}

void take_write(Cell& cell, const Access& now, const void* address) {
  if (race(cell.write, now)) fail("a race, in writing", address, now, &cell.write, "wrote");
  const Access& last = cell.read;
  const uint32_t own = 1u << now.thread % kLanes;
  bool wrong = last.counts() && (cell.blocks || last.block != now.block);
  if (last.counts() && last.block == now.block && last.barriers == now.barriers)
    wrong |= cell.warps || last.warp() != now.warp() ||
             (last.warp_barriers == now.warp_barriers && (cell.lanes & ~own));
  if (wrong) fail("a race, in writing", address, now, &last, "read, or others before it");
  cell.write = now;
}

void take(Cell& cell, const Access& now, const void* address, bool writes) {
  if (writes)
    take_write(cell, now, address);
  else
    take_read(cell, now, address);
}

Cell& device_cell(uintptr_t word) {
  static thread_local uintptr_t last = 0;
  static thread_local Page* page = nullptr;
  const uintptr_t number = word / 1024;
  if (device.empty() || last != number || !page) {
    auto& held = device[number];
    if (!held) held = std::make_unique<Page>();
    last = number, page = held.get();
  }
  return (*page)[word % 1024];
}

Cell& cell_of(uintptr_t word, uintptr_t memory) {
  if (word * 4 < memory || word * 4 >= memory + watched.memory_size) return device_cell(word);
  if (shared_of != watched.block || !shared_now) {
    shared_now = &shared[watched.block], shared_of = watched.block;
    if (shared_now->empty()) shared_now->resize((watched.memory_size + 3) / 4);
  }
  return (*shared_now)[word - memory / 4];
}

void access(const void* address, size_t size, bool writes, const void* code) {
  if (!watched.kernel) return;
  const auto* at = static_cast<const unsigned char*>(address);
  if (size_t(at - watched.stack) < watched.stack_size) return;
  if (size_t(at - reinterpret_cast<const unsigned char*>(&watched)) < sizeof(watched)) return;
  const Access now{watched.block, watched.thread, watched.barriers, watched.warp_barriers, code};
  const auto memory = reinterpret_cast<uintptr_t>(watched.memory), begin = reinterpret_cast<uintptr_t>(at);
  const uintptr_t end = begin + size;
  const bool in_block = begin >= memory && begin < memory + watched.memory_size + 64;
  if (in_block && end > memory + watched.memory_size)
    fail("an access beyond the memory of its block", address, now, nullptr, "");
  const auto visit = [&](Cell& cell) {
    if (in_block && !writes && cell.write.block != watched.block)
      fail("a read of memory that nobody has written", address, now, nullptr, "");
    take(cell, now, address, writes);
  };
  for (uintptr_t byte = begin; byte < end;) {
    Cell& cell = cell_of(byte / 4, memory);
    const bool whole = byte % 4 == 0 && end - byte >= 4;
    if (!whole && !cell.bytes) {
      auto bytes = std::make_unique<std::array<Cell, 4>>();
      bytes->fill(cell);
      cell.bytes = std::move(bytes);
    }
    const uintptr_t next = whole ? byte + 4 : byte + 1;
    if (!cell.bytes) visit(cell);
    for (uintptr_t each = byte; cell.bytes && each < next; ++each) visit((*cell.bytes)[each % 4]);
    byte = next;
  }
}

}  // namespace

bool counts_barrier(const char* file, int line) {
  reached.insert({file, line});
  return line != left_out.second || left_out.first != file;
}

void forget_block() {
  shared.erase(watched.block);
  shared_now = nullptr;
}

void forget_device() { device.clear(); }

}  // namespace cuda_on_host

// For tests: leaves out a barrier, or none; writes FILE:LINE of those reached since the last time, a line
// each.
extern "C" void leave_out_barrier(const char* file, int line) { cuda_on_host::left_out = {file, line}; }

extern "C" int reached_barriers(char* to, int size) {
  std::string lines;
  for (const auto& [file, line] : cuda_on_host::reached)
    lines += std::string(file) + ":" + std::to_string(line) + "\n";
  cuda_on_host::reached.clear();
  return std::snprintf(to, size_t(size), "%s", lines.c_str());
}

// What the compilers call: by size, aligned or not, volatile or not, and of a range.
#define ACCESS(NAME, SIZE, WRITES)                                            \
  extern "C" void NAME(void* address) {                                       \
    cuda_on_host::access(address, SIZE, WRITES, __builtin_return_address(0)); \
  }
#define ACCESSES(SIZE)                             \
  ACCESS(__tsan_read##SIZE, SIZE, false)           \
  ACCESS(__tsan_write##SIZE, SIZE, true)           \
  ACCESS(__tsan_unaligned_read##SIZE, SIZE, false) \
  ACCESS(__tsan_unaligned_write##SIZE, SIZE, true) \
  ACCESS(__tsan_volatile_read##SIZE, SIZE, false)  \
  ACCESS(__tsan_volatile_write##SIZE, SIZE, true)

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// instead of memcpy, memmove and memset, by clang
void* __tsan_memmove(void* to, const void* from, size_t size) {
  cuda_on_host::access(from, size, false, __builtin_return_address(0));
  cuda_on_host::access(to, size, true, __builtin_return_address(0));
  return std::memmove(to, from, size);
}
void* __tsan_memcpy(void* to, const void* from, size_t size) { return __tsan_memmove(to, from, size); }
void* __tsan_memset(void* to, int value, size_t size) {
  cuda_on_host::access(to, size, true, __builtin_return_address(0));
  return std::memset(to, value, size);
}

// of what is larger than a register
void __tsan_read_range(void* address, size_t size) {
  cuda_on_host::access(address, size, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t size) {
  cuda_on_host::access(address, size, true, __builtin_return_address(0));
}
}
