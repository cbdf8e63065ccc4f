// The CUDA kernels of subspaces and the geodesic cosine, run on the host for
// tests/kernels/test_cuda_geodesic.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/angles_kernel.h"
#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"

namespace {

using namespace geokernels;

// As csrc/cuda/geodesic.cu does: in shared memory, or a few blocks in `far`, which take problems in turn.
template <class T, class Kernel>
void run(Kernel kernel, int64_t problems, int64_t numbers, int threads, bool far, int order) {
  std::vector<T> memory;
  Room<T> room{nullptr, 0};
  const int blocks = far ? 2 : int(problems);
  if (far) {
    memory.assign(blocks * numbers, std::numeric_limits<T>::quiet_NaN());
    room = {memory.data(), numbers};
  }
  cuda_on_host::launch(blocks, threads, far ? 0 : numbers * sizeof(T), order, [&] { kernel(room); });
}

struct Options {
  int64_t problems, N, D, K, L, rank, far, order;
  double small;  // rtol or eps
};

template <class T>
void basis(const Options& o, const T* x, T* left, T* directions, T* values) {
  const BasisBatch<T> work{x, left, directions, values, o.problems, o.N, o.D, o.small};
  run<T>([&](Room<T> room) { subspace_basis_kernel(work, room); }, o.problems, work.room(), kSubspaceThreads,
         o.far, int(o.order));
}

template <class T>
void basis_backward(const Options& o, const T* grad_directions, const T* grad_values, const T* left,
                    const T* directions, const T* values, T* grad_x) {
  const BasisGradient<T> work{grad_directions, grad_values, left, directions, values,
                              grad_x,          o.problems,  o.N,  o.D,        o.rank};
  run<T>([&](Room<T> room) { subspace_basis_backward_kernel(work, room); }, o.problems, work.room(),
         kSubspaceThreads, o.far, int(o.order));
}

template <class T>
void angles(const Options& o, const T* p, const T* q, T* found) {
  const AngleBatch<T> work{p, q, found, o.problems, o.D, o.K, o.L};
  run<T>([&](Room<T> room) { principal_angles_kernel(work, room); }, o.problems, work.room(),
         kSubspaceThreads, o.far, int(o.order));
}

template <class T>
void cosine(const Options& o, const T* x, const T* y, const T* p, const T* q, T* cosines, T* left, T* right,
            T* g, T* coordinates) {
  const CosineBatch<T> work{x,           y,          p,   q,   cosines, left, right,  g,
                            coordinates, o.problems, o.N, o.D, o.K,     o.L,  o.small};
  run<T>([&](Room<T> room) { geodesic_cosine_kernel(work, room); }, o.problems, Frame<T>::room(work.M()),
         kGeodesicThreads, o.far, int(o.order));
}

template <class T>
void cosine_backward(const Options& o, const T* grad, const T* x, const T* y, const T* p, const T* q,
                     const T* left, const T* right, const T* g, const T* coordinates, T* to_x, T* to_y,
                     T* to_p, T* to_q) {
  const int64_t rows = o.problems * 4 * o.N * std::max(o.K, o.L);
  std::vector<T> spare(2 * rows, std::numeric_limits<T>::quiet_NaN());
  const CosineGradient<T> work{grad,
                               x,
                               y,
                               p,
                               q,
                               left,
                               right,
                               g,
                               coordinates,
                               to_x,
                               to_y,
                               to_p,
                               to_q,
                               spare.data(),
                               spare.data() + rows,
                               o.problems,
                               o.N,
                               o.D,
                               o.K,
                               o.L,
                               o.small};
  run<T>([&](Room<T> room) { geodesic_cosine_backward_kernel(work, room); }, o.problems,
         Frame<T>::room(work.M()), kGeodesicThreads, o.far, int(o.order));
}

}  // namespace

#define EXPORT(T)                                                                                          \
  extern "C" void basis_##T(const Options* o, const T* x, T* left, T* directions, T* values) {             \
    basis(*o, x, left, directions, values);                                                                \
  }                                                                                                        \
  extern "C" void basis_backward_##T(const Options* o, const T* grad_directions, const T* grad_values,     \
                                     const T* left, const T* directions, const T* values, T* grad_x) {     \
    basis_backward(*o, grad_directions, grad_values, left, directions, values, grad_x);                    \
  }                                                                                                        \
  extern "C" void angles_##T(const Options* o, const T* p, const T* q, T* found) {                         \
    angles(*o, p, q, found);                                                                               \
  }                                                                                                        \
  extern "C" void cosine_##T(const Options* o, const T* x, const T* y, const T* p, const T* q, T* cosines, \
                             T* left, T* right, T* g, T* coordinates) {                                    \
    cosine(*o, x, y, p, q, cosines, left, right, g, coordinates);                                          \
  }                                                                                                        \
  extern "C" void cosine_backward_##T(const Options* o, const T* grad, const T* x, const T* y, const T* p, \
                                      const T* q, const T* left, const T* right, const T* g,               \
                                      const T* coordinates, T* to_x, T* to_y, T* to_p, T* to_q) {          \
    cosine_backward(*o, grad, x, y, p, q, left, right, g, coordinates, to_x, to_y, to_p, to_q);            \
  }

EXPORT(float)
EXPORT(double)
