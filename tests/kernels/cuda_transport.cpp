// The Sinkhorn kernel of csrc/cuda, run on the host for tests/kernels/emulated_transport.py.

#include "cuda_on_host.h"
// the names that it stands in for
#include "cuda/transport_kernel.h"

namespace {

using namespace geokernels;

struct Options {
  int64_t problems, rows, columns;
  double eps, reach, tol;
  int64_t max_iter, blocks, near_groups, order, features, kind, stored, width;
};

template <class T>
void solve(const Options& o, const PointBatch<T>& points, const Carried<T>& carried, const T* cost,
           const T* a, const T* b, const T* start, const int64_t* n, const int64_t* m, T* value, T* f, T* g,
           T* error, int64_t* iterations) {
  const TransportBatch<T> batch{cost,  a,       b,     start,      n,     m, o.problems, o.rows, o.columns,
                                o.eps, o.reach, o.tol, o.max_iter, value, f, g,          error,  iterations};
  with_layout<T>(o.rows, o.columns, [&](auto layout) {
    using L = decltype(layout);
    const int groups = L::groups(o.rows);
    const int near = L::kResident ? groups : int(std::min<int64_t>(groups, o.near_groups));
    Store<T> store{near, nullptr, int64_t(groups - near) * L::kEntries};
    const int64_t blocks = L::kResident ? o.problems : o.blocks;
    std::vector<T> far(blocks * store.far_size, std::numeric_limits<T>::quiet_NaN());
    store.far = far.empty() ? nullptr : far.data();
    cuda_on_host::launch(int(blocks), L::kThreads, shared_bytes<T, L>(near, points.x, carried.v),
                         int(o.order), [&] { sinkhorn_kernel<T, L>(batch, store, points, carried); });
  });
}

}  // namespace

#define EXPORT(T)                                                                                          \
  extern "C" void sinkhorn_##T(const Options* o, const void* x, const void* y, T* cost, const T* columns,  \
                               T* carried, const T* a, const T* b, const T* start, const int64_t* n,       \
                               const int64_t* m, T* value, T* f, T* g, T* error, int64_t* iterations) {    \
    const PointBatch<T> points{x, y, cost, o->features, PointCost(o->kind), Stored(o->stored)};            \
    solve(*o, points, Carried<T>{columns, carried, o->width}, cost, a, b, start, n, m, value, f, g, error, \
          iterations);                                                                                     \
  }

EXPORT(float)
EXPORT(double)

// Bytes of shared memory that a block asks for where it may have so many.
#define EXPORT_MEMORY(T)                                                                              \
  extern "C" int64_t memory_##T(int64_t rows, int64_t columns, int64_t room, int points, int carry) { \
    int64_t memory = 0;                                                                               \
    with_layout<T>(rows, columns, [&](auto layout) {                                                  \
      memory = places<T, decltype(layout)>(rows, room, points, carry).memory;                         \
    });                                                                                               \
    return memory;                                                                                    \
  }

EXPORT_MEMORY(float)
EXPORT_MEMORY(double)
