// Clouds moved along the cheapest one-to-one assignment of their points, on the CPU.
//
//   x [..., N, D], y [..., M, D], times [..., T]   to   moved [..., T, N, D], chosen [..., N]
//
// One thread makes the costs of a problem in the precision of its points, assigns in float64 and moves the
// points while they are in its cache: the costs of a batch are never all there. Where a cost, or a sum of a
// few, is not finite, the problem is not solved: -1 throughout, and points that are NaN.

#include <tuple>

#include "core/assignment_steps.h"
#include "core/transport_problem.h"
#include "cpu/workers.h"
#include "host/fresh.h"
#include "host/operators.h"

#define GEOKERNELS_KERNEL "cpu/displacement_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

template <class T>
struct Clouds {
  const T *x, *y, *times;
  int64_t problems, n, m, features, count;
  T* moved;
  int64_t* chosen;

  struct Room {
    T* cost;             // [n, m]
    Workspace<T> costs;  // of the product
    Workspace<T> assignment;

    Room(Workspace<T>& from, const Clouds& c)
        : cost(from.take(c.n * c.m)),
          costs(from.part(GEOKERNELS_AT_LEVEL(point_costs_workspace<T>, c.m, c.features))),
          assignment(from.part(GEOKERNELS_AT_LEVEL(assignment_workspace<T>, c.n, c.m))) {}
  };

  int64_t workspace() const {
    Workspace<T> counted;
    Room(counted, *this);
    return counted.taken();
  }

  void solve(int64_t k, int64_t ahead, Workspace<T> memory, Watch& watch) const {
    const Room room(memory, *this);
    T* const cost = room.cost;
    const T *from = x + k * n * features, *to = y + k * m * features;
    const int64_t on = k + ahead < problems ? ahead * features : 0;
    GEOKERNELS_AT_LEVEL(point_costs<T>, from, to, n, m, features, std::make_pair(on * n, on * m),
                        PointCost::square, cost, m, room.costs);
    int64_t* columns = chosen + k * n;
    T* z = moved + k * count * n * features;
    // nobody is assigned where the prices of finite costs overflow
    if (GEOKERNELS_AT_LEVEL(are_finite<T>, cost, n * m) &&
        GEOKERNELS_AT_LEVEL(assign<T>, cost, n, m, columns, room.assignment, watch)) {
      GEOKERNELS_AT_LEVEL(displace<T>, from, to, columns, times + k * count, count, n, features, z);
    } else {
      std::fill(columns, columns + n, -1);
      std::fill(z, z + count * n * features, std::numeric_limits<T>::quiet_NaN());
    }
  }
};

std::tuple<Tensor, Tensor> displacement(const Tensor& x, const Tensor& y, const Tensor& times) {
  check_first(x, 2);
  const Batch batch(x, 2);
  STD_TORCH_CHECK(y.dim() == x.dim() && times.dim() == x.dim() - 1,
                  "geokernels: y and times must have the batch dimensions of x");
  const int64_t n = x.size(-2), m = y.size(-2), features = x.size(-1), count = times.size(-1);
  STD_TORCH_CHECK(0 < n && n <= m && 0 < features,
                  "geokernels: as many points of y as of x, or more, and a feature");
  check(y, batch.with({m, features}), x);
  check(times, batch.with({count}), x);
  Tensor moved = fresh(x, batch.with({count, n, features}));
  Tensor chosen = fresh(x, batch.with({n}), ScalarType::Long);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Clouds<T> clouds{read<T>(x), read<T>(y), read<T>(times), batch.count,     n,
                           m,          features,   count,          write<T>(moved), write<int64_t>(chosen)};
    // threads advance side by side: this one is likely to take that problem next
    const int64_t ahead = torch::stable::get_num_threads();
    Watch watch;
    share_out<T>(watch, batch.count, clouds.workspace(),
                 [&](int64_t k, Workspace<T> own) { clouds.solve(k, ahead, own, watch); });
    watch.end();
  });
  return {moved, chosen};
}

}  // namespace
}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) { m.impl("displacement", TORCH_BOX(&geokernels::displacement)); }
