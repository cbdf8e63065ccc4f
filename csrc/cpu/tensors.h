// What host loops share: memory-safety checks, typed pointers, and problems spread over threads.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "cpu/workers.h"

namespace geokernels {

// Python has explained every wrong argument; this stops a wrong call from touching foreign memory.
template <class Shape = std::initializer_list<int64_t>>
void check(const torch::stable::Tensor& x, const Shape& shape, const torch::stable::Tensor& like) {
  bool fits = x.dim() == int64_t(shape.size()) && x.is_contiguous() && x.scalar_type() == like.scalar_type();
  int64_t dim = 0;
  for (const int64_t size : shape) fits = fits && x.size(dim++) == size;
  STD_TORCH_CHECK(fits, "geokernels got a tensor of another shape, layout or dtype than this operator takes");
}

inline bool is_dense_real(const torch::stable::Tensor& x) {
  using torch::headeronly::ScalarType;
  const bool real = x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double;
  return real && x.is_contiguous();
}

// The tensor that all others are checked against.
inline void check_first(const torch::stable::Tensor& x, int64_t dims) {
  STD_TORCH_CHECK(x.dim() == dims && is_dense_real(x), "geokernels expects dense float32 or float64 of ",
                  dims, " dimensions");
}

// The same for problems in a batch of any shape, each of `inner` dimensions.
inline void check_first_batch(const torch::stable::Tensor& x, int64_t inner) {
  STD_TORCH_CHECK(x.dim() >= inner && is_dense_real(x),
                  "geokernels expects dense float32 or float64 of at least ", inner, " dimensions");
}

template <class T>
const T* read(const torch::stable::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* write(torch::stable::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// The dimensions of a tensor before its last `inner`: problems that stand side by side.
struct Batch {
  std::vector<int64_t> sizes;
  int64_t count = 1;

  Batch(const torch::stable::Tensor& x, int64_t inner) {
    for (int64_t dim = 0; dim + inner < x.dim(); ++dim) {
      sizes.push_back(x.size(dim));
      count *= sizes.back();
    }
  }

  std::vector<int64_t> with(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> shape(sizes);
    shape.insert(shape.end(), inner);
    return shape;
  }
};

// Calls body(b, Workspace<T> of memory(T()) numbers) for `count` problems of about `cost` multiplications
// each.
template <class Memory, class Body>
void for_each_problem(const torch::stable::Tensor& like, int64_t count, int64_t cost, const Memory& memory,
                      const Body& body) {
  constexpr int64_t kWorthAThread = 50'000;
  const int64_t together = 1 + kWorthAThread / (1 + cost);
  Watch watch;
  auto run = [&](auto zero) { share_out<decltype(zero)>(watch, count, memory(zero), body, together); };
  like.scalar_type() == torch::headeronly::ScalarType::Double ? run(double()) : run(float());
  watch.end();
}

}  // namespace geokernels
