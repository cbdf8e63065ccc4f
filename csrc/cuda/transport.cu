// Entropic transport of small problems on the GPU: how its kernel is launched, and registration.
// The iteration itself is cuda/transport_kernel.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/transport_kernel.h"
#include "transport_batch.h"

namespace geokernels {
namespace {

// As much of K as fits is in shared memory, the rest in device memory: enough for the blocks that run at
// once.
template <class T, class L>
void launch_layout(const TransportBatch<T>& batch, const Tensor& like, const Device& device) {
  using Solver = Sinkhorn<T, L>;
  int64_t blocks = batch.problems;
  Store<T> store{0, nullptr, 0};
  std::optional<Tensor> far;
  if (!L::kResident) {
    const int groups = L::groups(batch.rows);
    const int64_t room = device.block_memory() - Solver::memory(0);
    store.near_groups = int(std::min<int64_t>(groups, room / (Solver::memory(1) - Solver::memory(0))));
    store.far_size = int64_t(groups - store.near_groups) * L::kEntries;
    blocks = std::min(blocks, device.property(cudaDevAttrMultiProcessorCount));
    if (store.far_size > 0) {
      far = fresh(like, {blocks, store.far_size}, like.scalar_type());
      store.far = static_cast<T*>(far->mutable_data_ptr());
    }
  }
  launch(sinkhorn_kernel<T, L>, blocks, L::kThreads, Solver::memory(store.near_groups), device.stream(),
         batch, store);
}

Solution sinkhorn(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  const Device device(cost);
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol, [&](const auto& batch) {
    using T = std::remove_pointer_t<decltype(batch.f)>;
    with_layout<T>(batch.rows, batch.columns,
                   [&](auto layout) { launch_layout<T, decltype(layout)>(batch, cost, device); });
  });
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) { m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn)); }
