// Sinkhorn's iteration for small problems, one block a problem, CUDA.
//
//   P_ij = a_i u_i K_ij v_j b_j,      K_ij = exp(phi_i + gamma_j - C_ij / eps)
//
// cost   [B, N, M]   row-major; +inf forbids a pair; given, or made of points first
// a, b   [B, N], [B, M]   weights, or null: uniform; a point of zero weight takes no part
// f, g   [B, N], [B, M]   written in full, zero beyond a problem's own n and m
//
// The algorithm is that of cpu/transport_kernel.h, whose header derives it: the scaling domain, with u and v
// absorbed into phi and gamma, and K made anew, when a sum leaves [1/kReach, kReach]; one sweep over K for
// both half-steps; the stopping rule, the value and the error of what is returned.
//
// Warp w has rows R at a time, lane l the columns l, l + 32, ... of them. These R x C entries of K
// belong to one thread for good: in its registers (Layout::kResident), else in as much shared memory
// as there is and the rest in device memory, which the L2 cache holds. Row sums go through the lanes of a
// warp, R of them at once; column sums through shared memory, a line for each warp. Two barriers an
// iteration.
//
// Sums and products are in T, masses and the value in float64. The order of summation depends on the
// layout alone: results repeat from run to run. The host never waits for the device. What only rare steps
// need lies in shared memory, so that registers are left for K.
//
// Limits: N and M at most kMostPoints.

#pragma once

#include <cmath>

#include "core/transport_problem.h"
#include "core/transport_value.h"
#include "cuda/transport_points_kernel.h"

namespace geokernels {

// How a block holds K: so many columns a lane, rows a warp at a time, and warps.
template <int Columns, int Rows, int Warps, bool Resident>
struct Layout {
  static constexpr int kColumns = Columns, kRows = Rows, kWarps = Warps;
  static constexpr bool kResident = Resident;  // all rows at once, in registers
  static constexpr int kThreads = Warps * kWarp;
  static constexpr int kWidth = Columns * kWarp;
  static constexpr int kHeight = Rows * Warps;
  static constexpr int kEntries = Rows * Columns * kThreads;  // of K, a group of rows
  static constexpr int kMostRows = Resident ? kHeight : int(kMostPoints);

  // Times that all warps take their rows, for n of them.
  __host__ __device__ static constexpr int groups(int64_t n) { return int((n + kHeight - 1) / kHeight); }
};

// Calls use(layout) with the layout for clouds of at most so many points.
template <class T, class Use>
void with_layout(int64_t rows, int64_t columns, const Use& use) {
  const int64_t most = rows > columns ? rows : columns;
  if (most <= 64) return use(Layout<2, 8, 8, true>());
  if constexpr (sizeof(T) == 4)  // twice as wide, so many would not fit the registers
    if (most <= 96) return use(Layout<3, 8, 12, true>());
  if (most <= 128) return use(Layout<4, 4, 8, false>());
  use(Layout<8, 4, 8, false>());
}

// What a block has in shared memory. Rows belong to warps: but for absorb and finish, nobody else reads them.
template <class T, class L>
struct Shared {
  TransportProblem<T> problem;
  double mass_a, mass_b;
  double spare[L::kWarps];
  T errors[L::kWarps];
  T a[L::kMostRows], phi[L::kMostRows];
  T u[2][L::kMostRows], log_u[2][L::kMostRows];  // those in force, and the next
  T b[L::kWidth], gamma[L::kWidth], v[L::kWidth], log_v[L::kWidth];
  T right[L::kWidth];  // v b
  T partial[L::kWarps][L::kWidth];
};

// Where threads keep the entries of K that their registers do not hold.
template <class T>
struct Store {
  int near_groups;  // in shared memory behind Shared; the others in `far`
  T* far;           // device memory, far_size numbers a block; null where everything is near
  int64_t far_size;
};

// Bytes of shared memory, with so many groups of K's rows in it. Costs of points are made where K lies later.
template <class T, class L>
constexpr int64_t shared_bytes(int64_t near_groups, bool with_points) {
  const int64_t held = near_groups * L::kEntries * int64_t(sizeof(T));
  const int64_t points = with_points ? int64_t(sizeof(typename PointCosts<T, L>::Memory)) : 0;
  return int64_t(sizeof(Shared<T, L>)) + (held > points ? held : points);
}

template <class T, class L>
class Sinkhorn {
 public:
  // Takes the problem that thread 0 has put into the shared memory.
  __device__ explicit Sinkhorn(const Store<T>& store)
      : p(shared().problem),
        groups(L::kResident ? 1 : L::groups(p.n)),
        near_groups(store.near_groups),
        far(store.far ? store.far + blockIdx.x * store.far_size : nullptr),
        balanced(!(p.reach < infinity<double>())),
        inverse_eps(T(1 / p.eps)),
        lambda(balanced ? T(1) : T(p.reach / (p.reach + p.eps))),
        bend(T(-p.eps / p.reach)) {}

  __device__ void run() {
    Shared<T, L>& s = shared();
    const bool valid_a = load_side(p.a, p.n, L::kMostRows, s.a, s.phi, s.mass_a);
    const bool valid_b = load_side(p.b, p.m, L::kWidth, s.b, s.gamma, s.mass_b);
    if (!valid_a || !valid_b) return refuse();
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      if (p.start && s.b[j] > 0) s.gamma[j] = T(p.start[j] / p.eps);
      s.v[j] = 1, s.log_v[j] = 0;
    }
    double aim = p.tol;
    int64_t done = 0;
    for (bool stale = true;;) {
      if (stale) {
        absorb(s.v, s.log_v, s.gamma, L::kWidth);
        renew_rows();
      }
      bool in_range = sweep() || stale;
      const double error = row_error + stranded;
      if (!stale && (!(error > aim) || done >= p.max_iter)) {  // NaN stops as well
        const double returned = finish(error);
        if (!(returned > p.tol) || done >= p.max_iter || returned - error >= aim) break;
        aim -= returned - error;  // rounding f and g cost this much: go on for as much less
        in_range = false;
      }
      stale = !in_range;
      if (stale) continue;
      now = 1 - now;
      ++done;
      if (!scale_columns()) renew_columns();
    }
    if (threadIdx.x == 0) *p.iterations = done;
  }

 private:
  static constexpr int C = L::kColumns, R = L::kRows;
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  // e^30 leaves float32 room above its least number; float64 can wait longer
  static constexpr T kReach = sizeof(T) == 4 ? T(1e13) : T(1e90);

  struct Step {
    T scale, log_scale, sum;

    __device__ bool in_range() const { return !(sum < 1 / kReach) && !(sum > kReach); }
  };

  __device__ static Shared<T, L>& shared() { return *reinterpret_cast<Shared<T, L>*>(block_memory()); }
  __device__ static T* near() { return reinterpret_cast<T*>(block_memory() + sizeof(Shared<T, L>)); }
  __device__ static int column(int c) { return lane() + c * kWarp; }
  __device__ static int row(int group, int r) { return (group * L::kWarps + warp()) * R + r; }

  // A pair's cost in units of eps, +inf where one of them is not there.
  __device__ T exponent(int i, int j) const {
    return i < int(p.n) && j < int(p.m) ? p.cost[i * int(p.stride) + j] * inverse_eps : kInfinity;
  }

  // Brings this thread's entries of a group into `tile`, and puts them back.
  __device__ void recall(int group) {
    if constexpr (!L::kResident) {
      if (group < near_groups)
        copy_entries(
            [&](T& entry, int e) { entry = near()[(group * R * C + e) * L::kThreads + threadIdx.x]; });
      else
        copy_entries([&](T& entry, int e) { entry = *further(group, e); });
    }
  }
  __device__ void keep(int group) {
    if constexpr (!L::kResident) {
      if (group < near_groups)
        copy_entries(
            [&](T& entry, int e) { near()[(group * R * C + e) * L::kThreads + threadIdx.x] = entry; });
      else
        copy_entries([&](T& entry, int e) { *further(group, e) = entry; });
    }
  }
  template <class Copy>
  __device__ void copy_entries(const Copy& copy) {
#pragma unroll
    for (int e = 0; e < R * C; ++e) copy(tile[e / C][e % C], e);
  }
  __device__ T* further(int group, int e) const {
    return far + ((group - near_groups) * R * C + e) * L::kThreads + threadIdx.x;
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

  __device__ void refuse() {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (int64_t i = threadIdx.x; i < p.n; i += L::kThreads) p.f[i] = nan;
    for (int64_t j = threadIdx.x; j < p.m; j += L::kThreads) p.g[j] = nan;
    if (threadIdx.x == 0) *p.value = *p.error = nan, *p.iterations = 0;
  }

  // Moves a scaling into its potential. With a penalty the logarithm is at hand, and does not underflow.
  __device__ void absorb(T* scale, T* log_scale, T* potential, int count) {
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += L::kThreads) {
      potential[i] += balanced ? T(std::log(scale[i])) : log_scale[i];
      scale[i] = 1;
      log_scale[i] = 0;
    }
    __syncthreads();
  }
  __device__ void absorb_rows() {
    absorb(shared().u[now], shared().log_u[now], shared().phi, groups * L::kHeight);
  }

  // A half-step's scaling from its sum; 1 for a point that takes no part.
  __device__ Step half_step(T sum, T potential) const {
    const bool idle = potential == -kInfinity;
    sum = idle ? T(1) : sum;
    if (balanced) return {T(1) / sum, T(0), sum};
    const T log_scale = -lambda * T(std::log(sum)) - (idle ? T(0) : (T(1) - lambda) * potential);
    return {T(std::exp(log_scale)), log_scale, sum};
  }

  // Makes K with every row's largest entry 1, from gamma alone; v and u start at 1.
  __device__ void renew_rows() {
    Shared<T, L>& s = shared();
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) s.right[j] = s.b[j];
    for (int i = threadIdx.x; i < groups * L::kHeight; i += L::kThreads) s.u[now][i] = 1, s.log_u[now][i] = 0;
    double lost = 0;
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
        const T weight = s.a[i];
        T best = -kInfinity;
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const T x = s.gamma[column(c)] - exponent(i, column(c));
          best = x > best ? x : best;
          tile[r][c] = x;
        }
        best = warp_max(best);
        const T most = best == -kInfinity ? T(0) : best;
#pragma unroll
        for (int c = 0; c < C; ++c) tile[r][c] = weight > 0 ? T(std::exp(tile[r][c] - most)) : T(0);
        __syncwarp();  // everybody has read the weight
        if (lane() == 0) lost += set_potential(s.a, s.phi, i, best);
      }
      keep(group);
    }
    lose(lost);
  }

  // A potential that makes the largest entry 1; returns the weight of a point that can reach nobody.
  __device__ static T set_potential(T* weight, T* potential, int i, T best) {
    const T given = weight[i];
    potential[i] = given > 0 ? -best : -kInfinity;
    if (!(given > 0) || best != -kInfinity) return 0;
    weight[i] = 0;
    potential[i] = -kInfinity;
    return given;
  }

  // Counts mass that no admissible pair can take; a barrier for what came before.
  __device__ void lose(double mass) {
    mass = block_sum(mass, shared().spare);
    if (balanced) stranded += mass;
  }

  // Row sums of the present plan and their error; the next u, and the column sums that go with it.
  // False when the row sums are too small or too large to be trusted.
  __device__ bool sweep() {
    Shared<T, L>& s = shared();
    T weights[C], of_columns[C] = {};
#pragma unroll
    for (int c = 0; c < C; ++c) weights[c] = s.right[column(c)];
    T wrong = 0;
    bool in_range = true;
    for (int group = 0; group < groups; ++group) {
      recall(group);
      T sums[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        sums[r] = 0;
#pragma unroll
        for (int c = 0; c < C; ++c) sums[r] += tile[r][c] * weights[c];
      }
      const T sum = sum_each<R>(sums);
      const int i = row(group, lane() % R);
      const T weight = s.a[i], potential = s.phi[i];
      const Step step = half_step(sum, potential);
      in_range &= step.in_range();
      if (lane() < R) {
        // what the sum should be, as a fraction of the weight
        const T wanted = balanced ? T(1) : T(std::exp((potential + s.log_u[now][i]) * bend));
        if (weight > 0) wrong += weight * T(std::fabs(s.u[now][i] * sum - wanted));
        s.u[1 - now][i] = step.scale;
        s.log_u[1 - now][i] = step.log_scale;
      }
      const T scaled = step.scale * weight;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const T left = __shfl_sync(kAllLanes, scaled, r);
#pragma unroll
        for (int c = 0; c < C; ++c) of_columns[c] += tile[r][c] * left;
      }
    }
    show_columns(of_columns);
    wrong = warp_sum(wrong);
    if (lane() == 0) s.errors[warp()] = wrong;
    in_range = __syncthreads_and(in_range);
    row_error = 0;
    for (int w = 0; w < L::kWarps; ++w) row_error += s.errors[w];
    return in_range;
  }

  __device__ static void show_columns(const T (&mine)[C]) {
#pragma unroll
    for (int c = 0; c < C; ++c) shared().partial[warp()][column(c)] = mine[c];
  }

  // The sum of what the warps have shown of column j.
  __device__ static T column_sum(int j) {
    T sum = 0;
    for (int w = 0; w < L::kWarps; ++w) sum += shared().partial[w][j];
    return sum;
  }

  // v from the column sums; false when those are too small or too large to be trusted.
  __device__ bool scale_columns() {
    Shared<T, L>& s = shared();
    bool in_range = true;
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      const Step step = half_step(column_sum(j), s.gamma[j]);
      in_range &= step.in_range();
      s.v[j] = step.scale;
      s.log_v[j] = step.log_scale;
      s.right[j] = step.scale * s.b[j];
    }
    return __syncthreads_and(in_range);
  }

  // Makes K with every column's largest entry 1, from phi and u alone, and takes the column step.
  __device__ void renew_columns() {
    Shared<T, L>& s = shared();
    absorb_rows();
    T best[C];
#pragma unroll
    for (int c = 0; c < C; ++c) best[c] = -kInfinity;
    for (int group = 0; group < groups; ++group)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const T x = s.phi[i] - exponent(i, column(c));
          best[c] = x > best[c] ? x : best[c];
        }
        __syncwarp();  // a row's costs at a time, for the sake of registers
      }
    show_columns(best);
    __syncthreads();
    double lost = 0;
    for (int j = threadIdx.x; j < L::kWidth; j += L::kThreads) {
      T most = -kInfinity;
      for (int w = 0; w < L::kWarps; ++w) most = s.partial[w][j] > most ? s.partial[w][j] : most;
      lost += set_potential(s.b, s.gamma, j, most);
    }
    lose(lost);
    T sums[C] = {};
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
        const T weight = s.a[i], potential = s.phi[i];
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const int j = column(c);
          tile[r][c] = weight > 0 ? T(std::exp((potential - exponent(i, j)) + s.gamma[j])) : T(0);
          sums[c] += tile[r][c] * weight;
        }
        __syncwarp();
      }
      keep(group);
    }
    show_columns(sums);
    __syncthreads();
    scale_columns();
  }

  // phi and gamma become the potentials in units of eps; the value, f, g and their error, which is returned,
  // are written.
  __device__ double finish(double error) {
    Shared<T, L>& s = shared();
    absorb_rows();
    absorb(s.v, s.log_v, s.gamma, L::kWidth);
    const double most = fmax(largest(s.a, s.phi, p.n), largest(s.b, s.gamma, p.m));
    const double mass_a = s.mass_a, mass_b = s.mass_b;
    const double of_a = gain(p.a, s.a, s.phi, p.n, mass_a), of_b = gain(p.b, s.b, s.gamma, p.m, mass_b);
    const double value = p.eps * dual_value(of_a, of_b, mass_a, mass_b, p.reach / p.eps);
    const double shift = balanced && stranded == 0 ? (of_b - of_a) / (mass_a + mass_b) : 0;
    for (int i = threadIdx.x; i < p.n; i += L::kThreads) {
      const bool idle = !(s.a[i] > 0);
      const double potential =
          idle ? transform(s.b, s.gamma, p.m, p.cost + i * p.stride, 1) : double(s.phi[i]);
      p.f[i] = T(p.eps * (potential + shift));
    }
    for (int j = threadIdx.x; j < p.m; j += L::kThreads) {
      const bool idle = !(s.b[j] > 0);
      const double potential = idle ? transform(s.a, s.phi, p.n, p.cost + j, p.stride) : double(s.gamma[j]);
      p.g[j] = T(p.eps * (potential - shift));
    }
    // rounding f and g moves an entry of P by this much, relatively, at most
    const double rounding = 4 * double(std::numeric_limits<T>::epsilon()) * (most + fabs(shift));
    if (rounding * mass_a > p.tol / 8) error = measured_error() + stranded;
    if (threadIdx.x == 0) *p.value = T(value), *p.error = T(error);
    return error;
  }

  // The largest size of a potential that counts; 0 where none does.
  __device__ static double largest(const T* weight, const T* potential, int64_t count) {
    double most = 0;
    for (int i = threadIdx.x; i < count; i += L::kThreads)
      if (weight[i] > 0) most = fmax(most, fabs(double(potential[i])));
    most = warp_max(most);
    __syncthreads();  // whatever was in spare has been read
    if (lane() == 0) shared().spare[warp()] = most;
    __syncthreads();
    for (int w = 0; w < L::kWarps; ++w) most = fmax(most, shared().spare[w]);
    return most;
  }

  // The potential, in units of eps, that a point without mass has by the other side's.
  __device__ double transform(const T* weight, const T* potential, int64_t count, const T* cost,
                              int64_t step) const {
    double most = -infinity<double>(), total = 0;
    for (int64_t k = 0; k < count; ++k)
      if (weight[k] > 0) most = fmax(most, double(potential[k]) - double(cost[k * step]) / p.eps);
    if (most == -infinity<double>()) return infinity<double>();
    for (int64_t k = 0; k < count; ++k)
      if (weight[k] > 0)
        total += weight[k] * std::exp(double(potential[k]) - double(cost[k * step]) / p.eps - most);
    return -double(lambda) * (most + std::log(total));
  }

  // What one side adds to the value; a point stranded has gone to the end of its gain.
  __device__ double gain(const T* given, const T* weight, const T* potential, int64_t count,
                         double mass) const {
    double total = 0;
    for (int i = threadIdx.x; i < count; i += L::kThreads) {
      const double w = given ? double(given[i]) : mass / count;
      if (w > 0)
        total += w * dual_gain(weight[i] > 0 ? double(potential[i]) : infinity<double>(), p.reach / p.eps);
    }
    return block_sum(total, shared().spare);
  }

  // Both marginals of the plan of f and g as returned, against what they should be.
  __device__ double measured_error() const {
    Shared<T, L>& s = shared();
    __syncthreads();  // f and g are written
    T of_columns[C] = {};
    double wrong = 0;
    for (int group = 0; group < groups; ++group)
#pragma unroll 1
      for (int r = 0; r < R; ++r) {
        const int i = row(group, r);
        const T weight = s.a[i], potential = weight > 0 ? p.f[i] : T(0);
        T total = 0;
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const int j = column(c);
          if (!(weight > 0) || !(s.b[j] > 0)) continue;
          const T e = T(std::exp(((p.g[j] + potential) - p.cost[i * p.stride + j]) * inverse_eps));
          total += e * s.b[j];
          of_columns[c] += e * weight;
        }
        total = warp_sum(total);
        if (weight > 0 && lane() == 0) wrong += weight * fabs(double(total) - share(potential));
      }
    show_columns(of_columns);
    __syncthreads();
    for (int j = threadIdx.x; j < p.m; j += L::kThreads)
      if (s.b[j] > 0) wrong += s.b[j] * fabs(double(column_sum(j)) - share(p.g[j]));
    return block_sum(wrong, s.spare);
  }

  // What a marginal should be, as a fraction of the weight, by a potential as returned.
  __device__ double share(T potential) const {
    return balanced ? 1.0 : std::exp(-double(potential) / p.reach);
  }

  const TransportProblem<T>& p;  // in shared memory
  const int groups, near_groups;
  T* const far;
  const bool balanced;
  const T inverse_eps, lambda, bend;
  int now = 0;          // which of the two u is in force
  double stranded = 0;  // mass that no admissible pair can take
  T row_error;          // of the plan that the last sweep met
  T tile[R][C];         // entries of K: all that this thread has, or those of the group at hand
};

// Blocks take problems in turn, so that what is far is no larger than the blocks that run at once need.
template <class T, class L>
__global__ void __launch_bounds__(L::kThreads, 1)
    sinkhorn_kernel(TransportBatch<T> batch, Store<T> store, PointBatch<T> points) {
  using Costs = PointCosts<T, L>;
  TransportProblem<T>& p = reinterpret_cast<Shared<T, L>*>(block_memory())->problem;
  auto* room = reinterpret_cast<typename Costs::Memory*>(block_memory() + sizeof(Shared<T, L>));
  for (int64_t k = blockIdx.x; k < batch.problems; k += gridDim.x) {
    __syncthreads();  // the problem before is done with
    if (threadIdx.x == 0) p = batch.problem(k);
    __syncthreads();
    for (int64_t i = p.n + threadIdx.x; i < batch.rows; i += L::kThreads) p.f[i] = 0;
    for (int64_t j = p.m + threadIdx.x; j < batch.columns; j += L::kThreads) p.g[j] = 0;
    if (points.x) Costs(points, p, k, batch.rows, batch.columns, *room).write();
    Sinkhorn<T, L>(store).run();
  }
}

}  // namespace geokernels
