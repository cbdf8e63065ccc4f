// What host loops share: memory-safety checks, typed pointers, and problems spread over threads.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>

#include "cpu/parallel.h"

namespace geokernels {

// Python has explained every wrong argument; this stops a wrong call from touching foreign memory.
inline void check(const torch::stable::Tensor& x, std::initializer_list<int64_t> shape,
                  const torch::stable::Tensor& like) {
  bool fits = x.dim() == int64_t(shape.size()) && x.is_contiguous() && x.scalar_type() == like.scalar_type();
  int64_t dim = 0;
  for (const int64_t size : shape) fits = fits && x.size(dim++) == size;
  STD_TORCH_CHECK(fits, "geokernels got a tensor of another shape, layout or dtype than this operator takes");
}

// The tensor that all others are checked against.
inline void check_first(const torch::stable::Tensor& x, int64_t dims) {
  using torch::headeronly::ScalarType;
  const bool real = x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(x.dim() == dims && x.is_contiguous() && real,
                  "geokernels expects dense float32 or float64 of ", dims, " dimensions");
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
  parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (like.scalar_type() == torch::headeronly::ScalarType::Double)
      body(double(), begin, end);
    else
      body(float(), begin, end);
  });
}

}  // namespace geokernels
