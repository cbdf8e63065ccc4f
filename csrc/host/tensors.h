// What the host code of every operator shares, on the CPU and the GPU: checks for memory safety, typed
// pointers, the choice of the number type, and batches.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

namespace geokernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// A tensor is returned as it is where it is contiguous: torch::stable::contiguous looks its operator up by
// name, even if there is nothing to copy.
inline Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }
inline MaybeTensor dense(const MaybeTensor& x) { return x ? MaybeTensor(dense(*x)) : x; }

inline bool on_same_device(const Tensor& x, const Tensor& like) {
  return x.is_cuda() == like.is_cuda() && x.get_device_index() == like.get_device_index();
}

// Wrong arguments have been refused in Python, with a reason. This check and those below are for memory
// safety, where an operator is called directly.
template <class Shape = std::initializer_list<int64_t>>
void check(const Tensor& x, const Shape& shape, const Tensor& like) {
  bool fits = x.dim() == int64_t(shape.size()) && x.is_contiguous() &&
              x.scalar_type() == like.scalar_type() && on_same_device(x, like);
  int64_t dim = 0;
  for (const int64_t size : shape) fits = fits && x.size(dim++) == size;
  STD_TORCH_CHECK(fits, "geokernels got a tensor of another shape, layout, device or dtype than this takes");
}

// The tensor that all others are checked against: a batch of any shape, whose problems have so many
// dimensions.
inline void check_first(const Tensor& x, int64_t dims) {
  const bool real = x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(x.dim() >= dims && real && x.is_contiguous(),
                  "geokernels expects dense float32 or float64 of at least ", dims, " dimensions");
}

template <class T>
const T* read(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* write(Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// The address of an input of so many elements, in any shape; null for one that is not given.
template <class T>
const T* input(const MaybeTensor& x, const char* name, const Tensor& like, int64_t numel, ScalarType dtype) {
  if (!x) return nullptr;
  STD_TORCH_CHECK(
      x->numel() == numel && x->is_contiguous() && x->scalar_type() == dtype && on_same_device(*x, like),
      "geokernels: ", name, " must be contiguous, on the device of the other inputs, with ", numel,
      " elements of the right dtype");
  return read<T>(*x);
}

// Calls work(T()) with the number type of `like`, float or double.
template <class Work>
void with_type(const Tensor& like, const Work& work) {
  like.scalar_type() == ScalarType::Double ? work(double()) : work(float());
}

// The dimensions of a tensor before its last `inner` ones, which are those of a single problem.
struct Batch {
  std::vector<int64_t> sizes;
  int64_t count = 1;

  Batch(const Tensor& x, int64_t inner) {
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

}  // namespace geokernels
