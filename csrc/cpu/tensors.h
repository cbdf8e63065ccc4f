// What host loops share: memory-safety checks, typed pointers, and problems spread over threads.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace geokernels {

// Python has explained every wrong shape; these stop a wrong call from touching foreign memory.
inline void check_dense(const torch::stable::Tensor& x, int64_t dims) {
  STD_TORCH_CHECK(x.dim() == dims && x.is_contiguous(), "geokernels expects dense tensors of ", dims,
                  " dimensions");
}

template <class T>
const T* read(const torch::stable::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* write(torch::stable::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Calls body(T, begin, end) for ranges of `count` problems of about `cost` multiplications each.
template <class Body>
void for_each_problem(const torch::stable::Tensor& like, int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kWorthAThread = 50'000;
  const int64_t grain = 1 + kWorthAThread / (1 + cost);
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (like.scalar_type() == torch::headeronly::ScalarType::Double)
      body(double(), begin, end);
    else
      body(float(), begin, end);
  });
}

}  // namespace geokernels
