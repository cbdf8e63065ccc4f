// The CUDA kernels of subspaces and the geodesic cosine, run on the host for
// tests/kernels/emulated_geodesic.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include <deque>
#include <vector>

#include "cuda/angles_kernel.h"
#include "cuda/geodesic_backward_kernel.h"
#include "cuda/geodesic_kernel.h"
#include "cuda/subspace_plan.h"

namespace {

using namespace geokernels;

struct Options {
  int64_t problems, N, D, K, L, rank, limit, order;
  double small;  // rtol or eps
};

// As csrc/cuda/launcher.h: in shared memory, or where it is too small, in memory of the blocks' own. A few
// blocks take pieces in turn.
template <class T>
class Launcher {
 public:
  explicit Launcher(const Options& options) : options_(options) {}

  int64_t limit() const { return options_.limit; }

  T* memory(int64_t numbers) {
    kept_.emplace_back(numbers, std::numeric_limits<T>::quiet_NaN());
    return kept_.back().data();
  }

  template <class Work>
  void start_near(void (*kernel)(Work, Near<T>), const Work& work, int64_t pieces, int64_t numbers,
                  int threads) {
    cuda_on_host::launch(blocks(pieces), threads, numbers * sizeof(T), int(options_.order),
                         [&] { kernel(work, Near<T>()); });
  }

  template <class Work>
  void start(void (*near)(Work, Near<T>), void (*far)(Work, Far<T>), const Work& work, int64_t pieces,
             int64_t numbers, int threads) {
    if (numbers * int64_t(sizeof(T)) <= limit()) return start_near(near, work, pieces, numbers, threads);
    const Far<T> memory_of_blocks{memory(blocks(pieces) * numbers), numbers};
    cuda_on_host::launch(blocks(pieces), threads, 0, int(options_.order),
                         [&] { far(work, memory_of_blocks); });
  }

 private:
  static int blocks(int64_t pieces) { return int(std::min<int64_t>(pieces, 2)); }

  Options options_;
  std::deque<std::vector<T>> kept_;
};

template <class T>
void basis(const Options& o, const T* x, T* left, T* directions, T* values) {
  Launcher<T> on(o);
  find_bases<T>({x, left, directions, values, o.problems, o.N, o.D, o.small}, on);
}

template <class T>
void basis_backward(const Options& o, const T* grad_directions, const T* grad_values, const T* left,
                    const T* directions, const T* values, T* grad_x) {
  Launcher<T> on(o);
  find_basis_gradients<T>(
      {grad_directions, grad_values, left, directions, values, grad_x, nullptr, o.problems, o.N, o.D, o.rank},
      on);
}

template <class T>
void angles(const Options& o, const T* p, const T* q, T* found) {
  Launcher<T> on(o);
  find_angles<T>({p, q, found, o.problems, o.D, o.K, o.L, {}, {}, {}, {}}, on);
}

template <class T>
void cosine(const Options& o, const T* x, const T* y, const T* p, const T* q, T* cosines, T* left, T* right,
            T* g, T* coordinates) {
  const CosineBatch<T> work{x,           y,          p,   q,   cosines, left, right,  g,
                            coordinates, o.problems, o.N, o.D, o.K,     o.L,  o.small};
  Launcher<T>(o).start(GEOKERNELS_NEAR_AND_FAR(geodesic_cosine_kernel, T), work, o.problems,
                       Frame<T>::room(work.M()), kGeodesicThreads);
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
  Launcher<T>(o).start(GEOKERNELS_NEAR_AND_FAR(geodesic_cosine_backward_kernel, T), work, o.problems,
                       Frame<T>::room(work.M()), kGeodesicThreads);
}

// The shared memory that each launch of a problem would ask for, and what the plan is: whole, chunks, far.
template <class T>
void plan(const Options& o, int64_t* found) {
  const BasisPlan plan = BasisPlanner<T>(o.N, o.D, o.limit).plan();
  const ChunkBatch<T> chunks{nullptr, nullptr, nullptr, 1, o.N, o.D, plan.chunks, plan.width, plan.padded};
  const BasisBatch<T> whole{nullptr, nullptr, nullptr, nullptr, 1, o.N, o.D, 0};
  const BasisGradient<T> backward{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                  nullptr, 1,       o.N,     o.D,     1};
  const int64_t numbers[] = {plan.chunks > 1 ? chunks.room() : whole.room(), backward.room(),
                             Frame<T>::room(std::max(o.K, o.L)), ExpandBatch<T>::room()};
  for (int64_t count : numbers) *found++ = count * int64_t(sizeof(T));
  *found++ = plan.chunks;
  *found++ = plan.width;
  *found++ = plan.chunks * plan.padded;
}

}  // namespace

#define EXPORT(T)                                                                                          \
  extern "C" void angles_##T(const Options* o, const T* p, const T* q, T* found) {                         \
    angles(*o, p, q, found);                                                                               \
  }                                                                                                        \
  extern "C" void plan_##T(const Options* o, int64_t* found) { plan<T>(*o, found); }                       \
  extern "C" void basis_##T(const Options* o, const T* x, T* left, T* directions, T* values) {             \
    basis(*o, x, left, directions, values);                                                                \
  }                                                                                                        \
  extern "C" void basis_backward_##T(const Options* o, const T* grad_directions, const T* grad_values,     \
                                     const T* left, const T* directions, const T* values, T* grad_x) {     \
    basis_backward(*o, grad_directions, grad_values, left, directions, values, grad_x);                    \
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
