// Entropic transport between large point clouds on the CPU: Sinkhorn's iteration in the log domain, without a
// matrix of all pairs. The sweeps over the pairs are cpu/transport_clouds_sweep_kernel.h.
//
//   raw_i = -log sum_j b_j exp(g_j - C_ij),   f_i = lambda raw_i,   lambda = rho / (rho + 1), 1 when balanced
//
// and the same for the other side. Costs, potentials and the penalty rho are in units of eps. A sweep starts
// from the last raw potentials of the rows: their sums are then near 1, and say how far the row sums of the
// plan are from what they should be. It ends with the next potentials of both sides. Where the rows have
// moved and the columns have not, both marginals are then known, and with them the error: no sweep is made
// only for it. With a tolerance, the iteration may start from normal distributions
// (cpu/transport_clouds_start.h) and slow problems are over-relaxed (cpu/relaxation.h); without, a number of
// plain half-steps was asked for. The meaning of the error is that of cpu/transport_iteration.h.
//
// Strips of rows are shared out to the threads in groups, whose number depends on the sizes alone: a group's
// column sums are made by one thread and the groups' are added up in their order, so results do not depend on
// the threads.
//
// After cpu/each_level.h with cpu/transport_clouds_sweep_kernel.h.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/aim.h"
#include "core/transport_value.h"
#include "cpu/relaxation.h"
#include "cpu/transport_clouds_sample.h"
#include "cpu/transport_clouds_side.h"
#include "cpu/transport_clouds_start.h"
#include "cpu/workers.h"

namespace geokernels {

struct CloudOptions {
  int64_t features;
  PairCost cost;
  double p, reach;
  double hot, cooling;  // eps is annealed from hot, in units of eps, by this factor; hot 1: not at all
  int64_t max_iter;
  double tol;
};

template <class T>
class CloudSinkhorn {
 public:
  CloudSinkhorn(const T* x, const T* y, const T* of_x, const T* of_y, int64_t n, int64_t m,
                const CloudOptions& options, Watch& watch)
      : o(options),
        a(x, of_x, n, options.features, options.cost),
        b(y, of_y, m, options.features, options.cost),
        x(x),
        y(y),
        watch(watch) {
    balanced = !(o.reach < kInfinity<double>);
    heat(1);
  }

  bool valid() const { return a.valid && b.valid; }

  void run(const T* start) {
    bool known = false;  // whether sums will be near 1 with a's raw potentials
    if (start)
      for (int64_t j = 0; j < b.cloud.count; ++j) b.potential[j] = std::isfinite(start[j]) ? start[j] : T(0);
    else
      known = guess();
    anneal();
    Aim aim(o.tol, o.max_iter);
    step(iterations == 0 && !known);
    for (++iterations;; ++iterations) {
      a.adopt(lambda, relaxation.omega());
      error = a.off(o.reach) + b.off(o.reach);
      const bool last = iterations >= aim.most;
      if (watch.stop()) return;
      if (error > aim.error && !last) {  // NaN stops
        b.adopt(lambda, relaxation.omega());
        if (o.tol > 0) relaxation.see(error);
        if (!balanced) lift();
        step(false);
        continue;
      }
      if (error > aim.error) {  // a whole pair of half-steps, and a sweep that shows its error
        b.adopt(lambda);
        step(false);
        error = a.off(o.reach);
      } else {
        b.settle_idle(lambda);
      }
      const double reached = error;
      finish();
      if (!resolved) {
        value = error = std::numeric_limits<double>::quiet_NaN();
        a.potential.assign(a.cloud.count, T(value)), b.potential.assign(b.cloud.count, T(value));
        break;
      }
      if (aim.satisfied(reached, error, iterations)) break;
      step(false);
    }
  }

  // The marginal error after one half-step from a potential, or from none.
  double first_error(const std::vector<T>& from) {
    b.potential = from;
    step(true);
    a.adopt(lambda);
    return a.off(o.reach) + b.off(o.reach);
  }

  CloudOptions o;
  Side<T> a, b;
  double value = 0, error = 0;
  int64_t iterations = 0;

 private:
  enum class Rows { move, stay, alone };  // with the rows where they move to, where they are, or not at all

  // Sets eps to so many times its last value.
  void heat(double times) {
    temper = T(1 / times);
    lambda = balanced ? 1 : o.reach / (o.reach + times);
  }

  // Starts from normal distributions where they are nearer than nothing, which a sample of the points shows.
  // A number of half-steps that was asked for is one from 0, and annealing begins where that is near.
  bool guess() {
    if (!balanced || !(o.tol > 0) || o.hot > 1) return false;
    if (o.cost != PairCost::square && o.cost != PairCost::dot) return false;
    NormalStart<T> normal(a, b, o.features, watch);
    const Sample<T> rows(x, a, o.features, normal.f), columns(y, b, o.features, normal.g);
    CloudSinkhorn few(rows.points.data(), columns.points.data(), rows.weight.data(), columns.weight.data(),
                      rows.count, columns.count, o, watch);
    if (!few.valid()) return false;
    const double with = few.first_error(columns.potential);
    const double without = few.first_error(std::vector<T>(columns.count, T(0)));
    if (!(with < kNear && with < kNearer * without)) return false;
    a.raw = normal.f, b.potential = normal.g;
    return true;
  }

  // A pair of half-steps at every eps on the way down, in potentials that have it as their unit.
  void anneal() {
    double hot = std::max(o.hot, 1.0);
    b.scale(1 / hot);
    for (double next; hot > 1 && iterations + 1 < o.max_iter && !watch.stop(); ++iterations, hot = next) {
      heat(hot);
      step(iterations == 0);
      a.adopt(lambda), b.adopt(lambda);
      next = std::max(hot * o.cooling, 1.0);
      a.scale(hot / next), b.scale(hot / next);
    }
    if (hot > 1) a.scale(hot), b.scale(hot);
    heat(1);
  }

  void lift() {
    const double by = best_constant<T, double>(a.wanted(o.reach), b.wanted(o.reach), o.reach);
    if (by != 0) a.lift(by), b.lift(-by);
  }

  // What is next for both sides; `anywhere` when nothing is known of the potentials.
  void step(bool anywhere) {
    if (sweep(a, b, Rows::move, anywhere)) return;
    // columns that none of the rows' largest weights reaches are summed for themselves
    std::vector<T> before = a.potential;
    for (int64_t i = 0; i < a.cloud.count; ++i) a.potential[i] = a.moved(i, lambda, relaxation.omega());
    sweep(b, a, Rows::alone, true);
    a.potential = before;
  }

  // One pass over all pairs; false if a column's sum is not to be trusted.
  bool sweep(Side<T>& rows, Side<T>& columns, Rows how, bool anywhere) {
    rows.set_bias(rows.raw, temper), columns.set_bias(columns.potential, temper);
    const auto pass = pass_of(rows.cloud, columns.cloud, o.features, o.cost, T(o.p), temper);
    const int64_t whole = GEOKERNELS_AT_LEVEL(strip_rows<T>, pass.m);
    const int64_t strips = (pass.n + whole - 1) / whole;
    const int64_t groups = std::min(strips, std::clamp(kMostSums / pass.m, kLeastGroups, kMostGroups));
    const int64_t memory = GEOKERNELS_AT_LEVEL(strip_memory<T>, whole, pass.m);
    // what is first a row's top is then its scale
    auto rooms = [&](Workspace<T>& from) {
      return std::make_tuple(from.part(memory), from.take(whole), from.take(whole));
    };
    Workspace<T> counted;
    rooms(counted);
    sums.assign(how == Rows::alone ? 0 : groups * columns.cloud.whole, T(0));
    std::vector<T> scales(groups, T(1));  // the largest, 1 at least
    share_out<T>(watch, groups, counted.taken(), [&](int64_t group, Workspace<T> own) {
      const auto room = rooms(own);
      const auto& tiles = std::get<0>(room);
      T *const log_sum = std::get<1>(room), *const scale = std::get<2>(room);
      for (int64_t strip = strips * group / groups; strip < strips * (group + 1) / groups; ++strip) {
        if (watch.stop()) break;
        const int64_t first = strip * whole;
        GEOKERNELS_AT_LEVEL(sum_strip<T>, pass, first, whole, columns.weight.data(), anywhere, log_sum, scale,
                            tiles);
        for (int64_t i = first; i < std::min(first + whole, pass.n); ++i) {
          scale[i - first] = move_row(rows, i, log_sum[i - first], scale[i - first], how);
          scales[group] = std::max(scales[group], scale[i - first]);
        }
        if (how == Rows::alone) continue;
        T* column = sums.data() + group * columns.cloud.whole;
        GEOKERNELS_AT_LEVEL(add_strip_columns<T>, pass, first, whole, scale, column, tiles);
      }
    });
    return how == Rows::alone ||
           move_columns(columns, groups, *std::max_element(scales.begin(), scales.end()));
  }

  // Where a row is next; returns its weight among the column sums, 0 if it has no mass.
  T move_row(Side<T>& rows, int64_t i, double log_sum, double top, Rows how) const {
    const double bias = double(rows.raw[i]) - top;
    rows.next[i] = T(bias - log_sum);
    if (!(rows.weight[i] > 0)) return T(0);
    const double potential =
        how == Rows::move ? rows.moved(i, lambda, relaxation.omega()) : rows.potential[i];
    // above 0, so that an infinite E shows
    return std::max(T(rows.weight[i] * std::exp(potential - bias)), std::numeric_limits<T>::denorm_min());
  }

  bool move_columns(Side<T>& columns, int64_t groups, double scale) const {
    std::vector<double> total(columns.cloud.count, 0);
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t j = 0; j < columns.cloud.count; ++j) total[j] += sums[group * columns.cloud.whole + j];
    bool trusted = true;
    for (int64_t j = 0; j < columns.cloud.count; ++j) {
      trusted &= total[j] >= kLeastSum * scale && total[j] <= kMostSum;
      columns.next[j] = T(columns.potential[j] - std::log(total[j]));
    }
    return trusted;
  }

  // Potentials of rows without mass, the value, and the constant that balanced potentials are free in.
  void finish() {
    a.settle_idle(lambda);
    const SideSums of_a = a.sums(o.reach), of_b = b.sums(o.reach);
    value = of_a.gain + of_b.gain + a.mass * b.mass - a.plan_mass();
    if (is_below_eps(value, of_a, of_b))
      value = value_of_pairs(value, of_a, of_b, pair_sums(level_of(of_a, o.reach)), o.reach);
    const double shift = balanced ? (of_b.gain - of_a.gain) / (a.mass + b.mass) : 0;
    resolved = std::max(a.largest(), b.largest()) + std::fabs(shift) <= kMostPotential<T>;
    if (!balanced || !resolved) return;
    const double lost = 2 * (a.move(shift) + b.move(-shift));
    if (!(lost > o.tol / 8)) return;
    a.raw = a.potential;
    if (!sweep(a, b, Rows::stay, false)) sweep(b, a, Rows::alone, true);
    error = a.off(o.reach) + b.off(o.reach);
  }

  // What the pairs add where the costs are below eps.
  PairSums pair_sums(double level) {
    std::vector<T> f(a.cloud.count), g(b.cloud.whole, T(0)), zero_a(a.cloud.count, T(0)), zero_b(g);
    for (int64_t i = 0; i < a.cloud.count; ++i) f[i] = T(a.potential[i] + level);
    std::copy(b.potential.begin(), b.potential.end(), g.begin());
    a.set_bias(zero_a, T(1)), b.set_bias(zero_b, T(1));
    const auto pass = pass_of(a.cloud, b.cloud, o.features, o.cost, T(o.p));
    const int64_t whole = GEOKERNELS_AT_LEVEL(strip_rows<T>, pass.m);
    const int64_t strips = (pass.n + whole - 1) / whole;
    std::vector<PairSums> of_rows(strips * whole);
    const int64_t memory = GEOKERNELS_AT_LEVEL(strip_memory<T>, whole, pass.m);
    share_out<T>(watch, strips, memory, [&](int64_t strip, Workspace<T> own) {
      const int64_t first = strip * whole;
      GEOKERNELS_AT_LEVEL(rest_strip<T>, pass, first, whole, b.weight.data(), f.data(), g.data(),
                          of_rows.data() + first, own);
    });
    PairSums total;
    for (int64_t i = 0; i < a.cloud.count; ++i)
      if (a.weight[i] > 0) total.add(a.weight[i], of_rows[i]);
    return total;
  }

  static constexpr int64_t kLeastGroups = 8, kMostGroups = 64, kMostSums = int64_t(1) << 23;
  // terms that are lost to underflow are below rounding beside such a sum, times the largest scale
  static constexpr double kLeastSum = sizeof(T) == 4 ? 1e-25 : 1e-280;
  static constexpr double kMostSum = sizeof(T) == 4 ? 1e35 : 1e300;

  // looser limits save sweeps on more problems, and double those of some: benchmarks/NOTES.md
  static constexpr double kNear = 0.12, kNearer = 1.0 / 3;

  const T *x, *y;
  Watch& watch;
  bool balanced, resolved = true;
  double lambda;
  Relaxation relaxation;
  T temper;
  std::vector<T> sums;  // [groups, columns]
};

}  // namespace geokernels
