// Memory for results.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

#include "core/workspace.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace geokernels {

// Asks for huge pages where a result is so large that the allocator takes it from the system: that hands out
// and clears page by page, which takes longer than many a kernel.
inline void in_huge_pages([[maybe_unused]] torch::stable::Tensor& x) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = 2 << 20;
  const int64_t bytes = x.numel() * int64_t(x.element_size());
  if (bytes < 4 * int64_t(kHugePage)) return;
  const auto begin = reinterpret_cast<uintptr_t>(x.mutable_data_ptr());
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage,
                  end = (begin + bytes) / kHugePage * kHugePage;
  // a wish: where it is refused, nothing is lost
  madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

// With GEOKERNELS_POISON, fills a result with what nobody would return.
inline void poison([[maybe_unused]] torch::stable::Tensor& x) {
#ifdef GEOKERNELS_POISON
  using torch::headeronly::ScalarType;
  auto fill = [&](auto value) {
    std::fill_n(static_cast<decltype(value)*>(x.mutable_data_ptr()), x.numel(), value);
  };
  if (x.scalar_type() == ScalarType::Float) fill(nothing<float>());
  if (x.scalar_type() == ScalarType::Double) fill(nothing<double>());
  if (x.scalar_type() == ScalarType::Long) fill(nothing<int64_t>());
#endif
}

// Dense memory beside `like`, not filled. torch::stable's own call looks an operator up by name, which counts
// where a problem takes microseconds.
inline torch::stable::Tensor fresh(const torch::stable::Tensor& like, const std::vector<int64_t>& shape,
                                   torch::headeronly::ScalarType dtype) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle made;
  auto type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(), type,
                                                  device_type, device_index, &made));
  torch::stable::Tensor out(made);
  if (out.is_cpu()) in_huge_pages(out), poison(out);
  return out;
}

// The same in the dtype of `like`.
inline torch::stable::Tensor fresh(const torch::stable::Tensor& like, const std::vector<int64_t>& shape) {
  return fresh(like, shape, like.scalar_type());
}

}  // namespace geokernels
