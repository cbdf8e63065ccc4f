// What host code needs of CUDA: the current stream, limits of the device, launches, errors as exceptions.

#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>

#include "cuda/start.h"

namespace geokernels {

inline void check_cuda(cudaError_t status, const char* what) {
  STD_TORCH_CHECK(status == cudaSuccess, "geokernels: ", what, ": ", cudaGetErrorString(status));
}

// The device of a tensor, made the current one, and its current stream.
class Device {
 public:
  explicit Device(const torch::stable::Tensor& x) : index_(x.get_device_index()), guard_(index_) {}

  cudaStream_t stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return static_cast<cudaStream_t>(stream);
  }

  int64_t property(cudaDeviceAttr which) const {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, index_), "a property of the device");
    return value;
  }

  // The most shared memory that one block may ask for.
  int64_t block_memory() const { return property(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

// Starts blocks with so much shared memory each; none is no work.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t memory, cudaStream_t stream,
            const Arguments&... arguments) {
  constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(blocks <= kMostBlocks, "geokernels: at most ", kMostBlocks, " blocks, got ", blocks);
  if (blocks == 0) return;
  const Started done =
      start(kernel, unsigned(blocks), unsigned(threads), size_t(memory), stream, arguments...);
  check_cuda(done.status, done.before ? "a kernel was not launched, as CUDA had failed before"
                                      : "a kernel was not launched");
}

}  // namespace geokernels
