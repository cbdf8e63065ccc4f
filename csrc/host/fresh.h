// Memory for results.

#pragma once

#include <algorithm>
#include <vector>

#include "core/workspace.h"
#include "host/huge_pages.h"
#include "host/tensors.h"

namespace geokernels {

// With GEOKERNELS_POISON, fills a result with NaN, or with an index out of range: what a kernel forgets to
// write shows.
inline void poison([[maybe_unused]] Tensor& x) {
#ifdef GEOKERNELS_POISON
  auto fill = [&](auto value) {
    std::fill_n(static_cast<decltype(value)*>(x.mutable_data_ptr()), x.numel(), value);
  };
  if (x.scalar_type() == ScalarType::Float) fill(nothing<float>());
  if (x.scalar_type() == ScalarType::Double) fill(nothing<double>());
  if (x.scalar_type() == ScalarType::Long) fill(nothing<int64_t>());
#endif
}

// A contiguous tensor on the device of `like`, not filled. torch::stable::empty looks its operator up by
// name, which is too slow for problems that take microseconds.
inline Tensor fresh(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle made;
  auto type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(), type,
                                                  device_type, device_index, &made));
  Tensor out(made);
  if (out.is_cpu()) {
    in_huge_pages(out.mutable_data_ptr(), out.numel() * int64_t(out.element_size()));
    poison(out);
  }
  return out;
}

// The same in the dtype of `like`.
inline Tensor fresh(const Tensor& like, const std::vector<int64_t>& shape) {
  return fresh(like, shape, like.scalar_type());
}

}  // namespace geokernels
