// Assignment on the CPU: the loop over a batch, and its registration. The search is cpu/assignment_kernel.h.

#include "cpu/assignment.h"

#include <atomic>

#include "core/assignment_steps.h"
#include "cpu/workers.h"
#include "host/assignment.h"
#include "host/operators.h"

#define GEOKERNELS_KERNEL "cpu/assignment_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

// A thread takes a problem after another. 0; -1 where a problem has no assignment, -2 where the check of one
// fails.
template <class T, class Check>
int64_t assign_batch(const T* costs, int64_t problems, int64_t rows, int64_t columns, int64_t* chosen,
                     const Check& check) {
  Watch watch;
  std::atomic<int64_t> least{0};
  share_out<T>(watch, problems, GEOKERNELS_AT_LEVEL(assignment_workspace<T>, rows, columns),
               [&](int64_t k, Workspace<T> own) {
                 const T* const cost = costs + k * rows * columns;
                 int64_t* const columns_of = chosen + k * rows;
                 if (!check(cost, rows * columns)) {
                   std::fill_n(columns_of, rows, -1);
                   least.store(-2);
                 } else if (!GEOKERNELS_AT_LEVEL(assign<T>, cost, rows, columns, columns_of, own, watch)) {
                   int64_t none = 0;
                   least.compare_exchange_strong(none, -1);
                 }
               });
  watch.end();
  return least.load();
}

template <class T>
Tensor assignment_of(const Tensor& cost) {
  return assignment_of_batch<T>(
      cost, [](const T* costs, int64_t problems, int64_t rows, int64_t columns, int64_t* chosen) {
        assign_batch(costs, problems, rows, columns, chosen, [](const T*, int64_t) { return true; });
      });
}

Tensor assignment(const Tensor& cost) {
  return cost.scalar_type() == ScalarType::Float ? assignment_of<float>(cost) : assignment_of<double>(cost);
}

}  // namespace

int64_t assign_directly(uintptr_t cost, bool wide, int64_t problems, int64_t rows, int64_t columns,
                        uintptr_t chosen) {
  const auto solve = [&](const auto* costs) {
    using T = std::decay_t<decltype(*costs)>;
    return assign_batch(
        costs, problems, rows, columns, reinterpret_cast<int64_t*>(chosen),
        [](const T* c, int64_t count) { return GEOKERNELS_AT_LEVEL(are_costs<T>, c, count); });
  };
  return wide ? solve(reinterpret_cast<const double*>(cost)) : solve(reinterpret_cast<const float*>(cost));
}

}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) { m.impl("assignment", TORCH_BOX(&geokernels::assignment)); }
