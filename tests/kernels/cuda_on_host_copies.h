// Copies that go on while threads compute (csrc/cuda/copies.h), for cuda_on_host.h: nothing arrives before
// its thread waits for it.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "cuda_on_host_threads.h"

namespace cuda_on_host {

struct Copy {
  uint64_t* to;
  const uint64_t* from;  // null: zeros
};

// Of a thread: groups that are closed, and the one that is open.
struct Copies {
  std::deque<std::vector<Copy>> closed;
  std::vector<Copy> open;
};

inline std::map<std::pair<uint32_t, int>, Copies> copies;  // of threads, by block and index

inline Copies& own_copies() { return copies[{block.number, block.current}]; }

inline void copy_piece(void* to, const void* from, bool there) {
  const Unwatched own;
  if (uintptr_t(to) % 16 || (there && uintptr_t(from) % 16)) fail("a copy of a piece that is not aligned");
  own_copies().open.push_back(
      {static_cast<uint64_t*>(to), there ? static_cast<const uint64_t*>(from) : nullptr});
}

inline void close_copies() {
  const Unwatched own;
  Copies& mine = own_copies();
  mine.closed.push_back(std::move(mine.open));
  mine.open.clear();
}

template <int Groups>
void wait_for_copies() {
  std::vector<Copy> arriving;
  {
    const Unwatched own;
    for (auto& closed = own_copies().closed; closed.size() > Groups; closed.pop_front())
      arriving.insert(arriving.end(), closed.front().begin(), closed.front().end());
  }
  // these accesses are the thread's
  for (const Copy& copy : arriving)
    for (int half = 0; half < 2; ++half) copy.to[half] = copy.from ? copy.from[half] : 0;
}

}  // namespace cuda_on_host
