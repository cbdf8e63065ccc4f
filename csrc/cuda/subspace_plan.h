// How rows of features are cut so that a block can hold them on the chip, decided on the host.
//
// Whole where two blocks fit a multiprocessor of the smallest GPUs we build for; else in chunks of features,
// which must be few enough to leave a fraction of the features; else by what one block may have here. Rows
// that fit in no way are worked on in device memory, whole or in the widest chunks.

#pragma once

#include <algorithm>
#include <tuple>

#include "cuda/subspace_backward_kernel.h"
#include "cuda/subspace_kernel.h"

namespace geokernels {

constexpr int64_t kMostRows = 128;  // beyond, blocked library solvers win

// 99 KiB: what compute capability 8.6, 8.9 and 12.0 let a block have, and of which two fit into 228 KiB.
constexpr int64_t kModestMemory = 101'376;

struct BasisPlan {
  int64_t chunks, width, padded;  // 1 chunk: the whole; padded: coefficients of a chunk, in whole 16 bytes
};

template <class T>
class BasisPlanner {
 public:
  BasisPlanner(int64_t N, int64_t D, int64_t limit) : N_(N), D_(D), limit_(limit) {}

  BasisPlan plan() const {
    const int64_t modest = std::min(kModestMemory, limit_);
    if (fits(modest)) return whole();
    if (const int64_t width = widest(modest); worth(width, 4)) return cut(width);
    if (fits(limit_)) return whole();
    if (const int64_t width = widest(limit_); worth(width, 2)) return cut(width);
    return D_ <= kMostFeatures<T> ? whole() : cut(kMostFeatures<T>);
  }

 private:
  bool fits(int64_t bytes) const {
    return D_ <= kMostFeatures<T> && BasisRoom<T>::room(N_, D_, true) * int64_t(sizeof(T)) <= bytes;
  }

  int64_t widest(int64_t bytes) const {
    int64_t width = kMostFeatures<T>;
    while (width > 0 && BasisRoom<T>::room(N_, width, false) * int64_t(sizeof(T)) > bytes) width -= kUnit;
    return width;
  }

  // Whether chunks so wide have several times as many features as rows, and leave half of the features at
  // most.
  bool worth(int64_t width, int64_t times) const {
    if (width == 0 || width < times * N_) return false;
    const BasisPlan found = cut(width);
    return 2 * found.chunks * found.padded <= D_;
  }

  BasisPlan whole() const { return {1, D_, D_}; }

  BasisPlan cut(int64_t width) const {
    const int64_t chunks = std::max<int64_t>(2, (D_ + width - 1) / width);
    return {chunks, whole_units((D_ + chunks - 1) / chunks), whole_packs(N_)};
  }

  int64_t N_, D_, limit_;
};

// Starts what finds the bases of a batch. `on` gives limit(), bytes of shared memory that a block may have;
// memory(numbers) on the device; start(kernels, work, blocks, numbers of a block, threads), and start_near of
// a kernel whose blocks fit everywhere.
template <class T, class Launcher>
void find_bases(const BasisBatch<T>& batch, Launcher& on) {
  const auto [problems, N, D] = std::tuple(batch.problems, batch.N, batch.D);
  const BasisPlan plan = BasisPlanner<T>(N, D, on.limit()).plan();
  const int threads = subspace_threads(N);
  if (plan.chunks == 1)
    return on.start(GEOKERNELS_NEAR_AND_FAR(subspace_basis_kernel, T), batch, problems, batch.room(),
                    threads);
  const int64_t of_coefficients = plan.chunks * plan.padded;
  T* const q = on.memory(problems * plan.chunks * N * plan.width);
  T* const a = on.memory(problems * N * of_coefficients);
  T* const turns = on.memory(problems * N * of_coefficients);
  const ChunkBatch<T> chunks{batch.x, q, a, problems, N, D, plan.chunks, plan.width, plan.padded};
  on.start(GEOKERNELS_NEAR_AND_FAR(orthonormal_chunks_kernel, T), chunks, problems * plan.chunks,
           chunks.room(), threads);
  find_bases<T>({a, batch.left, turns, batch.values, problems, N, of_coefficients, batch.rtol}, on);
  const ExpandBatch<T> expand{turns, q, batch.left,  batch.directions, problems,
                              N,     D, plan.chunks, plan.width,       plan.padded};
  on.start_near(expand_directions_kernel<T>, expand, problems * expand.parts(), expand.room(),
                kMostSubspaceThreads);
}

template <class T, class Launcher>
void find_basis_gradients(BasisGradient<T> batch, Launcher& on) {
  const int threads = subspace_threads(batch.N);
  if (batch.parts() > 1) {
    batch.shares = on.memory(batch.of_shares());
    on.start_near(subspace_shares_kernel<T>, batch, batch.blocks(), 0, threads);
  }
  on.start(GEOKERNELS_NEAR_AND_FAR(subspace_basis_backward_kernel, T), batch, batch.blocks(), batch.room(),
           threads);
}

}  // namespace geokernels
