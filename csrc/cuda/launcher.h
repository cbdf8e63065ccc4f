// Starts kernels that work near or far (cuda/room.h), on the device and stream of a tensor.

#pragma once

#include <algorithm>
#include <vector>

#include "cuda/launch.h"
#include "cuda/room.h"
#include "host/fresh.h"

namespace geokernels {

template <class T>
class Launcher {
 public:
  explicit Launcher(const Tensor& like) : like_(like), device_(like) {}

  // Bytes of shared memory that a block may have.
  int64_t limit() const { return device_.block_memory(); }

  // So many numbers of device memory, until the launcher goes.
  T* memory(int64_t numbers) {
    kept_.push_back(fresh(like_, {numbers}));
    return write<T>(kept_.back());
  }

  template <class Work>
  void start_near(void (*kernel)(Work, Near<T>), const Work& work, int64_t pieces, int64_t numbers,
                  int threads) {
    launch(kernel, std::min(pieces, kMostBlocks), threads, numbers * int64_t(sizeof(T)), device_.stream(),
           work, Near<T>());
  }

  // Starts a block for each of `pieces` in shared memory; where it does not fit, as many as run at once in
  // device memory. Blocks take pieces in turn, should there be more of these.
  template <class Work>
  void start(void (*near)(Work, Near<T>), void (*far)(Work, Far<T>), const Work& work, int64_t pieces,
             int64_t numbers, int threads) {
    if (numbers * int64_t(sizeof(T)) <= limit()) return start_near(near, work, pieces, numbers, threads);
    const int64_t at_once = kBlocksEach * device_.property(cudaDevAttrMultiProcessorCount);
    const int64_t blocks = std::min(pieces, at_once), size = whole_packs(numbers);
    launch(far, blocks, threads, 0, device_.stream(), work, Far<T>{memory(blocks * size), size});
  }

 private:
  static constexpr int64_t kBlocksEach = 4;           // a multiprocessor's, in device memory
  static constexpr int64_t kMostBlocks = 0x7fffffff;  // of one launch

  const Tensor& like_;
  Device device_;
  std::vector<Tensor> kept_;
};

}  // namespace geokernels
