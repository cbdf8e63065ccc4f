// Subspaces and the geodesic cosine on the GPU: how their kernels are launched, and registration.
// The kernels are cuda/subspace_kernel.h, cuda/angles_kernel.h, cuda/geodesic_kernel.h and
// cuda/geodesic_backward_kernel.h.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "cuda/angles_kernel.h"
#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"
#include "cuda/launch.h"
#include "fresh.h"

namespace geokernels {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kBlocksEach = 4;  // a multiprocessor's, where blocks work in device memory

// The dimensions of a tensor before its last two: problems that stand side by side.
struct Batch {
  std::vector<int64_t> sizes;
  int64_t count = 1;

  explicit Batch(const Tensor& x) : sizes(x.sizes().begin(), x.sizes().end() - 2) {
    for (int64_t size : sizes) count *= size;
  }

  std::vector<int64_t> with(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> shape(sizes);
    shape.insert(shape.end(), inner);
    return shape;
  }
};

// Python has explained every wrong argument; this stops a wrong call from touching foreign memory.
void check_like(const Tensor& x, const std::vector<int64_t>& shape, const Tensor& like) {
  bool fits = x.dim() == int64_t(shape.size()) && x.is_contiguous() &&
              x.scalar_type() == like.scalar_type() && x.is_cuda() &&
              x.get_device_index() == like.get_device_index();
  for (size_t dim = 0; fits && dim < shape.size(); ++dim) fits = x.size(int64_t(dim)) == shape[dim];
  STD_TORCH_CHECK(fits, "geokernels got a tensor of another shape, layout, device or dtype than this takes");
}

void check_first(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(
      x.dim() >= 2 && x.is_contiguous() && (dtype == ScalarType::Float || dtype == ScalarType::Double),
      "geokernels expects dense float32 or float64 of at least 2 dimensions");
}

template <class T>
const T* read(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* write(Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

template <class Body>
void with_type(const Tensor& like, const Body& body) {
  if (like.scalar_type() == ScalarType::Double)
    body(double());
  else
    body(float());
}

// Starts a block for each problem in shared memory; where it does not fit, as many as run at once in device
// memory, which take the problems in turn.
template <class T, class Work>
void launch_in_room(void (*kernel)(Work, Room<T>), const Work& work, int64_t numbers, int threads,
                    const Tensor& like, const Device& device) {
  if (work.problems == 0) return;
  const int64_t bytes = numbers * int64_t(sizeof(T));
  if (bytes <= device.block_memory())
    return launch(kernel, work.problems, threads, bytes, device.stream(), work, Room<T>{nullptr, 0});
  const int64_t blocks =
      std::min(work.problems, kBlocksEach * device.property(cudaDevAttrMultiProcessorCount));
  const int64_t size = (numbers + 3) / 4 * 4;
  Tensor far = fresh(like, {blocks, size}, like.scalar_type());
  launch(kernel, blocks, threads, 0, device.stream(), work, Room<T>{write<T>(far), size});
}

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  check_first(x);
  const Device device(x);
  const Batch batch(x);
  const int64_t N = x.size(-2), D = x.size(-1), R = std::min(N, D);
  const ScalarType dtype = x.scalar_type();
  Tensor left = fresh(x, batch.with({R, N}), dtype), directions = fresh(x, batch.with({R, D}), dtype);
  Tensor values = fresh(x, batch.with({R}), dtype);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const BasisBatch<T> work{
        read<T>(x), write<T>(left), write<T>(directions), write<T>(values), batch.count, N, D, rtol};
    launch_in_room(subspace_basis_kernel<T>, work, work.room(), kSubspaceThreads, x, device);
  });
  return {left, directions, values};
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const std::optional<Tensor>& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  check_first(left);
  check_first(directions);
  const Device device(left);
  const Batch batch(left);
  const int64_t R = left.size(-2), N = left.size(-1), D = directions.size(-1);
  STD_TORCH_CHECK(R == std::min(N, D), "geokernels got ", R, " directions of ", N, " rows and ", D,
                  " features");
  for (const Tensor* part : {&directions, &grad_directions}) check_like(*part, batch.with({R, D}), left);
  check_like(values, batch.with({R}), left);
  if (grad_values) check_like(*grad_values, batch.with({R}), left);
  Tensor grad_x = fresh(left, batch.with({N, D}), left.scalar_type());
  with_type(left, [&](auto zero) {
    using T = decltype(zero);
    const BasisGradient<T> work{read<T>(grad_directions),
                                grad_values ? read<T>(*grad_values) : nullptr,
                                read<T>(left),
                                read<T>(directions),
                                read<T>(values),
                                write<T>(grad_x),
                                batch.count,
                                N,
                                D,
                                rank};
    launch_in_room(subspace_basis_backward_kernel<T>, work, work.room(), kSubspaceThreads, left, device);
  });
  return grad_x;
}

Tensor principal_angles(const Tensor& p, const Tensor& q) {
  check_first(p);
  check_first(q);
  const Device device(p);
  const Batch batch(p);
  const int64_t K = p.size(-2), L = q.size(-2), D = p.size(-1);
  check_like(q, batch.with({L, D}), p);
  Tensor angles = fresh(p, batch.with({std::min(K, L)}), p.scalar_type());
  with_type(p, [&](auto zero) {
    using T = decltype(zero);
    const AngleBatch<T> work{read<T>(p), read<T>(q), write<T>(angles), batch.count, D, K, L};
    launch_in_room(principal_angles_kernel<T>, work, work.room(), kSubspaceThreads, p, device);
  });
  return angles;
}

struct Sizes {
  Batch batch;
  int64_t N, D, K, L, M;

  Sizes(const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q) : batch(x) {
    for (const Tensor* part : {&x, &p, &q}) check_first(*part);
    N = x.size(-2), D = x.size(-1), K = p.size(-2), L = q.size(-2), M = std::max(K, L);
    check_like(y, batch.with({N, D}), x);
    check_like(p, batch.with({K, D}), x);
    check_like(q, batch.with({L, D}), x);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const Sizes s(x, y, p, q);
  const Device device(x);
  auto room = [&](std::initializer_list<int64_t> inner) {
    return fresh(x, s.batch.with(inner), x.scalar_type());
  };
  Tensor cosine = room({s.N}), left = room({s.M, s.M}), right = room({s.M, s.M}), g = room({s.M});
  Tensor coordinates = room({4, s.N, s.M});
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const CosineBatch<T> work{read<T>(x),
                              read<T>(y),
                              read<T>(p),
                              read<T>(q),
                              write<T>(cosine),
                              write<T>(left),
                              write<T>(right),
                              write<T>(g),
                              write<T>(coordinates),
                              s.batch.count,
                              s.N,
                              s.D,
                              s.K,
                              s.L,
                              eps};
    launch_in_room(geodesic_cosine_kernel<T>, work, Frame<T>::room(s.M), kGeodesicThreads, x, device);
  });
  return {cosine, left, right, g, coordinates};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const Sizes s(x, y, p, q);
  check_like(grad, s.batch.with({s.N}), x);
  for (const Tensor* part : {&left, &right}) check_like(*part, s.batch.with({s.M, s.M}), x);
  check_like(g, s.batch.with({s.M}), x);
  check_like(coordinates, s.batch.with({4, s.N, s.M}), x);
  const Device device(x);
  const ScalarType dtype = x.scalar_type();
  auto room = [&](bool wanted, int64_t rows) {
    return wanted ? fresh(x, s.batch.with({rows, s.D}), dtype) : fresh(x, {0}, dtype);
  };
  Tensor grad_x = room(to_x, s.N), grad_y = room(to_y, s.N), grad_p = room(to_p, s.K),
         grad_q = room(to_q, s.L);
  Tensor turned = fresh(x, s.batch.with({4, s.N, s.M}), dtype),
         on = fresh(x, s.batch.with({4, s.N, s.M}), dtype);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    auto at = [](bool wanted, Tensor& to) { return wanted ? write<T>(to) : nullptr; };
    const CosineGradient<T> work{read<T>(grad),
                                 read<T>(x),
                                 read<T>(y),
                                 read<T>(p),
                                 read<T>(q),
                                 read<T>(left),
                                 read<T>(right),
                                 read<T>(g),
                                 read<T>(coordinates),
                                 at(to_x, grad_x),
                                 at(to_y, grad_y),
                                 at(to_p, grad_p),
                                 at(to_q, grad_q),
                                 write<T>(turned),
                                 write<T>(on),
                                 s.batch.count,
                                 s.N,
                                 s.D,
                                 s.K,
                                 s.L,
                                 eps};
    launch_in_room(geodesic_cosine_backward_kernel<T>, work, Frame<T>::room(s.M), kGeodesicThreads, x,
                   device);
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
  m.impl("principal_angles", TORCH_BOX(&geokernels::principal_angles));
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
