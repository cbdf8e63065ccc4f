// The Sinkhorn kernel of csrc/cuda, run on the host for tests/kernels/test_cuda_emulated.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/transport_kernel.h"

namespace {

using namespace geokernels;

struct Options {
  int64_t problems, rows, columns;
  double eps, reach, tol;
  int64_t max_iter, blocks, near_groups, order;
};

template <class T>
void solve(const Options& o, const T* cost, const T* a, const T* b, const T* start, const int64_t* n,
           const int64_t* m, T* value, T* f, T* g, T* error, int64_t* iterations) {
  const TransportBatch<T> batch{cost,  a,       b,     start,      n,     m, o.problems, o.rows, o.columns,
                                o.eps, o.reach, o.tol, o.max_iter, value, f, g,          error,  iterations};
  with_layout<T>(o.rows, o.columns, [&](auto layout) {
    using L = decltype(layout);
    const int groups = L::groups(o.rows);
    const int near = L::kResident ? 0 : int(std::min<int64_t>(groups, o.near_groups));
    Store<T> store{near, nullptr, L::kResident ? 0 : int64_t(groups - near) * L::kEntries};
    std::vector<T> far(o.blocks * store.far_size, std::numeric_limits<T>::quiet_NaN());
    store.far = far.empty() ? nullptr : far.data();
    cuda_on_host::launch(int(o.blocks), L::kThreads, Sinkhorn<T, L>::memory(near), int(o.order),
                         [&] { sinkhorn_kernel<T, L>(batch, store); });
  });
}

}  // namespace

extern "C" {

void sinkhorn_float(const Options* o, const float* cost, const float* a, const float* b, const float* start,
                    const int64_t* n, const int64_t* m, float* value, float* f, float* g, float* error,
                    int64_t* iterations) {
  solve(*o, cost, a, b, start, n, m, value, f, g, error, iterations);
}

void sinkhorn_double(const Options* o, const double* cost, const double* a, const double* b,
                     const double* start, const int64_t* n, const int64_t* m, double* value, double* f,
                     double* g, double* error, int64_t* iterations) {
  solve(*o, cost, a, b, start, n, m, value, f, g, error, iterations);
}
}
