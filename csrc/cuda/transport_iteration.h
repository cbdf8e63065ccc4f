// Sinkhorn's iteration for small problems, one block a problem, CUDA.
//
//   P_ij = a_i u_i K_ij v_j b_j,      K_ij = exp(phi_i + gamma_j - C_ij / eps)
//
// cost   [B, N, M]   row-major; +inf forbids a pair; given, or made of points first
// a, b   [B, N], [B, M]   weights, or null: uniform; a point of zero weight takes no part
// f, g   [B, N], [B, M]   written in full, zero beyond a problem's own n and m
//
// The algorithm is that of cpu/transport_iteration.h, whose header derives it: the scaling domain, with u and
// v absorbed into phi and gamma, and K computed anew, when a sum leaves [1/kReach, kReach]; one sweep over K
// for both half-steps; the stopping rule, the value and the error of what is returned.
//
// Threads stand in rows and columns, and R x C entries of K belong to one of them throughout: in its
// registers (Layout::kResident), else in as much shared memory as there is and the rest in device memory,
// which the L2 cache holds. Row sums stay in a warp, whose lanes share out the rows and give each other what
// is summed (cuda/transport_lanes.h); column sums go through the lanes below each other and then through
// shared memory, a line for each warp. Two barriers an iteration.
//
// Sums and products are in T, and so is the error that every iteration compares: GPUs other than those of
// data centres have one float64 unit for 64 others. Masses and the value are in float64, once a problem. The
// order of summation depends on the layout alone: results repeat from run to run. The host never waits for
// the device. What only rare steps need lies in shared memory, so that registers are left for K.
//
// Limits: N and M at most kMostPoints.

#pragma once

#include <cmath>

#include "cuda/formulas.h"
#include "cuda/transport_layout.h"
#include "cuda/transport_result.h"

namespace geokernels {

template <class T, class L>
class Sinkhorn {
 public:
  // Takes the problem that thread 0 has put into the shared memory.
  __device__ explicit Sinkhorn(const Store<T>& store)
      : p(shared().problem), groups(L::kResident ? 1 : L::groups(p.n)), K(store) {
    if (threadIdx.x > 0) return;
    shared().balanced = !(p.reach < infinity<double>());
    shared().inverse_eps = T(1 / p.eps), shared().stranded = 0;
    shared().scaling = device::Scaling<T>(p.eps, p.reach);
    shared().aim = Aim<T>(p.tol, p.max_iter);
  }

  __device__ void run() {
    Shared<T, L>& s = shared();
    const bool valid_a = load_side(p.a, p.n, L::kMostRows, s.a, s.phi, s.mass_a);
    const bool valid_b = load_side(p.b, p.m, L::kWidth, s.b, s.gamma, s.mass_b);
    if (!valid_a || !valid_b) {
      Result<T, L>().refuse();
      if (threadIdx.x == 0) *p.iterations = 0;
      return;
    }
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      if (p.start && s.b[j] > 0 && std::isfinite(p.start[j])) s.gamma[j] = T(p.start[j] / p.eps);
      s.v[j] = 1, s.log_v[j] = 0;
    }
    int done = 0;
    if (threadIdx.x == 0) s.by = 0;
    K.forget();
    for (Stale stale = Stale::rows;;) {
      if (stale != Stale::nothing) renew(stale == Stale::rows);
      if (stale == Stale::columns) {
        sum_columns();
      } else {
        const bool renewed = stale == Stale::rows;
        const bool in_range = sweep();
        T error = s.total(s.errors) + s.stranded;
        const bool hopeless = renewed && std::isnan(error);                  // it comes from the costs
        if (!hopeless && !in_range && std::isnan(error)) error = kInfinity;  // a scaling has overflowed
        T by = 0;  // the constant that f gains and g loses
        if (!renewed && !s.balanced)
          by = best_constant<T, T, T>(s.total(s.asked_by_rows), s.total(s.asked_by_columns[now]),
                                      -1 / s.scaling.bend);
        if (hopeless || (!renewed && s.aim.reached(error, done))) {
          if (is_enough(error, done)) {
            done += hopeless;
            break;
          }
          K.forget();
          stale = Stale::rows;
          if (threadIdx.x == 0) s.by = by;
          continue;
        }
        const bool far = std::fabs(by) > T(device::Scaling<T>::kMostLift);
        stale = far || !(in_range || renewed) ? Stale::rows : Stale::nothing;
        if (stale == Stale::rows) {
          if (threadIdx.x == 0) s.by = by;
          continue;
        }
        if (by != 0) lift(by);
        now = 1 - now;
        ++done;
      }
      const bool in_range = scale_columns();
      stale = in_range || stale == Stale::columns ? Stale::nothing : Stale::columns;
    }
    if (threadIdx.x == 0) *p.iterations = done;
  }

 private:
  using RowShares = typename L::RowShares;
  enum class Stale {
    nothing,
    rows,
    columns
  };  // what K has to be made anew from: the sums that are not trusted
  static constexpr int C = L::kColumns, R = L::kRows;
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  static constexpr T kReach = device::Scaling<T>::kReach;

  __device__ static Shared<T, L>& shared() { return shared_memory<T, L>(); }
  __device__ static int column(int c) { return L::column(c); }
  __device__ static int row(int group, int r) { return L::row(group, r); }
  // False for NaN as well: a scaling has overflowed then, but not its logarithm.
  __device__ static bool in_reach(T sum) { return sum >= 1 / kReach && sum <= kReach; }

  // A pair's cost in units of eps, +inf where one of them is not there.
  __device__ T exponent(int i, int j) const {
    return i < int(p.n) && j < int(p.m) ? p.cost[i * int(p.stride) + j] * shared().inverse_eps : kInfinity;
  }

  // Copies weights and marks the points that take no part; false if one is negative or NaN, or all are 0.
  __device__ bool load_side(const T* weight, int64_t count, int whole, T* to, T* potential, double& mass) {
    double sum = 0, bad = 0;
    for (int i = threadIdx.x; i < whole; i += L::kThreads) {
      const T w = i >= count ? T(0) : weight ? weight[i] : T(1) / T(count);
      bad += !(w >= 0 && w < kInfinity);
      to[i] = w;
      potential[i] = w > 0 ? T(0) : -kInfinity;
      sum += w;
    }
    sum = block_sum(sum, shared().spare);
    if (threadIdx.x == 0) mass = sum;
    return block_sum(bad, shared().spare) == 0 && sum > 0;
  }

  // Moves a scaling into its potential. With a penalty the logarithm is at hand, and does not underflow. A
  // barrier has come since others wrote them.
  __device__ void absorb(T* scale, T* log_scale, T* potential, int count) {
    for (int i = threadIdx.x; i < count; i += L::kThreads) {
      potential[i] += shared().balanced ? T(std::log(scale[i])) : log_scale[i];
      scale[i] = 1;
      log_scale[i] = 0;
    }
    __syncthreads();
  }
  __device__ void absorb_rows() {
    absorb(shared().u[now], shared().log_u[now], shared().phi, groups * L::kHeight);
  }

  // Makes K anew, of potentials that have absorbed the scalings, with the largest entry of every row, or
  // column, about 1.
  __device__ void renew(bool by_rows) {
    if (by_rows)
      raise_rows();
    else
      raise_columns();
    Shared<T, L>& s = shared();
    for (int group = 0; group < groups; ++group)
#pragma unroll 1
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
        const T weight = s.a[i], potential = s.phi[i];
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const int j = column(c);
          const T power = (potential - exponent(i, j)) + s.gamma[j];
          K.put(group, r, c, std::exp(weight > 0 ? power : -kInfinity));
        }
      }
    if constexpr (L::kResident) K.recall(0);
  }

  // Finds phi from gamma alone, less a constant; v and u start at 1.
  __device__ void raise_rows() {
    Shared<T, L>& s = shared();
    absorb(s.v, s.log_v, s.gamma, L::kWidth);
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) s.gamma[j] -= s.by, s.right[j] = s.b[j];
    for (int i = threadIdx.x; i < groups * L::kHeight; i += L::kThreads) s.u[now][i] = 1, s.log_u[now][i] = 0;
    __syncthreads();
    double lost = 0;
    for (int group = 0; group < groups; ++group)
#pragma unroll 1
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
        T best = -kInfinity;
#pragma unroll
        for (int c = 0; c < C; ++c) best = Largest::of(best, s.gamma[column(c)] - exponent(i, column(c)));
        best = over_lanes<L::kAcross, Largest>(best);
        if (lane() % L::kAcross == 0) lost += set_potential(s.a, s.phi, i, best);
      }
    lose(lost);
  }

  // Finds gamma from phi and u alone.
  __device__ void raise_columns() {
    Shared<T, L>& s = shared();
    absorb_rows();
    T best[C];
#pragma unroll
    for (int c = 0; c < C; ++c) best[c] = -kInfinity;
    for (int group = 0; group < groups; ++group)
#pragma unroll 1
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
#pragma unroll
        for (int c = 0; c < C; ++c) best[c] = Largest::of(best[c], s.phi[i] - exponent(i, column(c)));
      }
    s.template show_columns<Largest>(best);
    __syncthreads();
    double lost = 0;
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      T most = -kInfinity;
      for (int w = 0; w < L::kWarps; ++w) most = Largest::of(most, s.partial[w][j]);
      lost += set_potential(s.b, s.gamma, j, most);
    }
    lose(lost);
  }

  // Column sums of K and the rows' weights, where u is 1.
  __device__ void sum_columns() {
    Shared<T, L>& s = shared();
    T sums[C] = {};
    for (int group = 0; group < groups; ++group) {
      if constexpr (!L::kResident) K.recall(group);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const T weight = s.a[row(group, r)];
#pragma unroll
        for (int c = 0; c < C; ++c) sums[c] += K.tile[r][c] * weight;
      }
    }
    s.show_columns(sums);
    __syncthreads();
  }

  // Takes f and g to f + by and g - by, after the sweep that computed the next u from the old g.
  __device__ void lift(T by) {
    Shared<T, L>& s = shared();
    const T step = s.scaling.lambda * by, times = std::exp(step);
    for (int i = threadIdx.x; i < groups * L::kHeight; i += L::kThreads) {
      s.u[1 - now][i] *= times;
      s.log_u[1 - now][i] += step;
    }
    for (int w = 0; w < L::kWarps; ++w)
      for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) s.partial[w][j] *= times;
  }

  // A potential that makes the largest entry 1; returns the weight of a point without an
  // admissible pair.
  __device__ static T set_potential(T* weight, T* potential, int i, T best) {
    const T given = weight[i];
    potential[i] = given > 0 ? -best : -kInfinity;
    if (!(given > 0) || best != -kInfinity) return 0;
    weight[i] = 0;
    potential[i] = -kInfinity;
    return given;
  }

  // Counts mass that no admissible pair can take; a barrier for what came before, and not for this.
  __device__ void lose(double mass) {
    mass = block_sum(mass, shared().spare);
    if (shared().balanced && threadIdx.x == 0) shared().stranded = T(shared().stranded + mass);
  }

  // Row sums of the present plan, their error and with a penalty the mass that the rows ask for; the next u,
  // and the column sums that go with it. False when the row sums are not to be trusted.
  __device__ bool sweep() {
    Shared<T, L>& s = shared();
    T weights[C], of_columns[C] = {};
#pragma unroll
    for (int c = 0; c < C; ++c) weights[c] = s.right[column(c)];
    const RowShares own;
    T wrong = 0, asked = 0;
    bool in_range = true;
    for (int group = 0; group < groups; ++group) {
      if constexpr (!L::kResident) K.recall(group);
      T sums[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        sums[r] = 0;
#pragma unroll
        for (int c = 0; c < C; ++c) sums[r] += K.tile[r][c] * weights[c];
      }
      RowShares::template out<Sum>(sums);
      const int i = row(group, own.first);
      const bool has_row = own.count > 0;
      const T weight = has_row ? s.a[i] : T(0), potential = has_row ? s.phi[i] : -kInfinity;
      const auto step = s.scaling.step(s.balanced, sums[0], potential);
      in_range &= in_reach(step.sum);
      if (has_row) {
        // what the sum should be, as a fraction of the weight
        const T wanted = s.scaling.wanted(s.balanced, potential, s.balanced ? T(0) : s.log_u[now][i]),
                found = s.u[now][i] * sums[0];
        // on its way to a solution a marginal may overflow, which is no reason to stop
        if (weight > 0) wrong += weight * (wanted < kInfinity ? T(std::fabs(found - wanted)) : wanted);
        if (weight > 0 && !s.balanced) asked += weight * wanted;
        s.u[1 - now][i] = step.scale;
        if (!s.balanced) s.log_u[1 - now][i] = step.log_scale;
      }
      const T scaled = s.scaling.scaled(s.balanced, step.scale, weight);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const T left = RowShares::from_holder(scaled, r);
#pragma unroll
        for (int c = 0; c < C; ++c) of_columns[c] += K.tile[r][c] * left;
      }
    }
    s.show_columns(of_columns);
    wrong = warp_sum(wrong);
    if (lane() == 0) s.errors[warp()] = wrong;
    if (!s.balanced) {
      asked = warp_sum(asked);
      if (lane() == 0) s.asked_by_rows[warp()] = asked;
    }
    return __syncthreads_and(in_range);
  }

  // v from the column sums, and with a penalty the mass that the columns ask for; false when the sums are not
  // to be trusted.
  __device__ bool scale_columns() {
    Shared<T, L>& s = shared();
    bool in_range = true;
    T asked = 0;
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      const T weight = s.b[j];
      const auto step = s.scaling.step(s.balanced, s.column_sum(j), s.gamma[j]);
      in_range &= in_reach(step.sum);
      s.v[j] = step.scale;
      if (!s.balanced) s.log_v[j] = step.log_scale;
      s.right[j] = s.scaling.scaled(s.balanced, step.scale, weight);
      if (weight > 0 && !s.balanced)
        asked += weight * s.scaling.wanted(s.balanced, s.gamma[j], step.log_scale);
    }
    if (!s.balanced) {
      asked = warp_sum(asked);
      if (lane() == 0) s.asked_by_columns[now][warp()] = asked;
    }
    return __syncthreads_and(in_range);
  }

  // Writes the result, and says whether what its rounding adds to the error is small enough.
  __device__ bool is_enough(T error, int done) {
    Aim<T> aim = shared().aim;
    const bool enough = aim.satisfied(error, finish(error), done);
    if (threadIdx.x == 0) shared().aim = aim;
    return enough;
  }

  // phi and gamma become the potentials in units of eps; what is returned is written, and its error known.
  __device__ double finish(T error) {
    absorb_rows();
    absorb(shared().v, shared().log_v, shared().gamma, L::kWidth);
    return Result<T, L>().write(error);
  }

  const TransportProblem<T>& p;  // in shared memory
  const int groups;
  KernelMatrix<T, L> K;
  int now = 0;  // which of the two u is the current one
};

}  // namespace geokernels
