// Sinkhorn's iteration in the log domain, CUDA: the first and plainest version.
//
//   f_i = -eps lambda log sum_j b_j exp((g_j - C_ij) / eps),      lambda = 1, or reach / (reach + eps)
//   g_j = -eps lambda log sum_i a_i exp((f_i - C_ij) / eps)
//
// cost   [B, N, M]   row-major; +inf forbids a pair
// a, b   [B, N], [B, M]   weights, or null: uniform; a point of zero weight takes no part
// f, g   [B, N], [B, M]   written in full, zero beyond a problem's own n and m
//
// One block solves one problem, and a problem that has converged leaves its multiprocessor to the next.
// A row is one warp's, which reads it along; a column is one thread's, so that neighbouring threads read
// neighbouring addresses. f and g stay in shared memory, in units of eps.
//
// Running maxima and sums are in T, the value, masses and marginal errors in float64. The order of summation
// depends on the sizes alone: results repeat from run to run. A point that cannot reach any mass ends with
// potential +inf. Stopping and value are those of cpu/transport_kernel.h; the error is that of both
// marginals, but where rounding alone keeps it above tol the iteration does not go on as it does there.
//
// Limits: N and M at most kMostPoints. The host never waits for the device.

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <limits>

#include "transport_batch.h"

namespace geokernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__device__ constexpr T infinity() {
  return std::numeric_limits<T>::infinity();
}

// log sum exp, one term at a time.
template <class T>
struct LogSum {
  T most = -infinity<T>(), total = 0;

  __device__ void add(T x) {
    if (x == -infinity<T>()) return;
    if (x <= most) {
      total += exp(x - most);
    } else {
      total = total * exp(most - x) + 1;
      most = x;
    }
  }
  __device__ void add(LogSum other) {
    if (other.total == 0) return;
    T whole = fmax(most, other.most);
    total = (total == 0 ? T(0) : total * exp(most - whole)) + other.total * exp(other.most - whole);
    most = whole;
  }
  __device__ T log() const { return total == 0 ? -infinity<T>() : most + ::log(total); }
};

template <class T>
__device__ LogSum<T> merge_lanes(LogSum<T> mine) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    LogSum<T> other;
    other.most = __shfl_xor_sync(kAllLanes, mine.most, lanes);
    other.total = __shfl_xor_sync(kAllLanes, mine.total, lanes);
    mine.add(other);
  }
  return mine;
}

// The sum over the block, known to every thread afterwards.
__device__ double block_sum(double mine) {
  __shared__ double partial[kWarps];
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) mine += __shfl_xor_sync(kAllLanes, mine, lanes);
  __syncthreads();  // the previous sum has been read
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = mine;
  __syncthreads();
  double whole = 0;
  for (double part : partial) whole += part;
  return whole;
}

template <class T>
struct Side {
  const T* weight;  // in device memory, or null: uniform
  int64_t count;
  T* log_weight;  // [count] in shared memory, -inf for points that take no part
  T* potential;   // [count] in shared memory, in units of eps
  double mass;

  __device__ T of(int64_t i) const { return weight ? weight[i] : T(1) / T(count); }
  __device__ bool takes_part(int64_t i) const { return log_weight[i] > -infinity<T>(); }
};

// False when a weight is negative or not finite, or all are zero.
template <class T>
__device__ bool load_side(Side<T>& side, const T* start, double eps) {
  double mass = 0, bad = 0;
  for (int64_t i = threadIdx.x; i < side.count; i += kThreads) {
    T w = side.of(i);
    bad += !(w >= 0 && w < infinity<T>());
    mass += w;
    side.log_weight[i] = ::log(w);
    side.potential[i] = start ? T(start[i] / eps) : T(0);
  }
  side.mass = block_sum(mass);
  return block_sum(bad) == 0 && side.mass > 0;
}

template <class T>
struct Solver {
  const TransportProblem<T>& p;
  Side<T> rows, columns;
  T* next;  // [n] the row potentials that the next half-step sets
  double stranded = 0;

  __device__ bool balanced() const { return p.reach == infinity<double>(); }
  __device__ T lambda() const { return balanced() ? T(1) : T(p.reach / (p.reach + p.eps)); }
  // what a marginal should be, as a fraction of the weight, given the potential
  __device__ double wanted(T potential) const {
    return balanced() ? 1.0 : ::exp(-double(potential) * p.eps / p.reach);
  }
  __device__ T exponent(int64_t i, int64_t j) const { return T(p.cost[i * p.stride + j] / p.eps); }

  __device__ T row_sum(int64_t i) const {
    LogSum<T> sum;
    for (int64_t j = threadIdx.x % kWarp; j < columns.count; j += kWarp)
      if (columns.takes_part(j)) sum.add(columns.log_weight[j] + columns.potential[j] - exponent(i, j));
    return merge_lanes(sum).log();
  }

  __device__ T column_sum(int64_t j) const {
    LogSum<T> sum;
    for (int64_t i = 0; i < rows.count; ++i)
      if (rows.takes_part(i)) sum.add(rows.log_weight[i] + rows.potential[i] - exponent(i, j));
    return sum.log();
  }

  // Sets next; returns the error of the row sums of the present plan.
  __device__ double sweep_rows() {
    double wrong = 0, lost = 0;
    for (int64_t i = threadIdx.x / kWarp; i < rows.count; i += kWarps) {
      T sum = row_sum(i);
      if (threadIdx.x % kWarp != 0) continue;
      next[i] = -lambda() * sum;
      if (!rows.takes_part(i)) continue;
      if (sum == -infinity<T>()) {
        rows.log_weight[i] = sum;
        lost += rows.of(i);
        continue;
      }
      T now = rows.potential[i];
      wrong += rows.of(i) * fabs(::exp(double(now) + double(sum)) - wanted(now));
    }
    if (double whole = block_sum(lost); balanced()) stranded += whole;
    return block_sum(wrong);
  }

  __device__ void step_columns() {
    double lost = 0;
    for (int64_t j = threadIdx.x; j < columns.count; j += kThreads) {
      T sum = column_sum(j);
      columns.potential[j] = -lambda() * sum;
      if (columns.takes_part(j) && sum == -infinity<T>()) {
        columns.log_weight[j] = sum;
        lost += columns.of(j);
      }
    }
    if (double whole = block_sum(lost); balanced()) stranded += whole;
  }

  __device__ double column_error() const {
    double wrong = 0;
    for (int64_t j = threadIdx.x; j < columns.count; j += kThreads)
      if (columns.takes_part(j)) {
        T now = columns.potential[j];
        wrong += columns.of(j) * fabs(::exp(double(now) + double(column_sum(j))) - wanted(now));
      }
    return block_sum(wrong);
  }

  __device__ double inner(const Side<T>& side) const {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < side.count; i += kThreads)
      if (side.takes_part(i)) sum += double(side.of(i)) * side.potential[i];
    return block_sum(sum);
  }

  // sum of weight (1 - exp(-potential / reach)), all of the weight for points that reach nothing
  __device__ double penalty(const Side<T>& side) const {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < side.count; i += kThreads) {
      double kept = side.takes_part(i) ? expm1(-double(side.potential[i]) * p.eps / p.reach) : -1.0;
      sum -= double(side.of(i)) * kept;
    }
    return block_sum(sum);
  }

  __device__ void run() {
    int64_t done = 0;
    for (;; ++done) {
      double wrong = sweep_rows() + stranded;
      if (done > 0 && (!(wrong > p.tol) || done >= p.max_iter)) break;  // NaN stops as well
      for (int64_t i = threadIdx.x; i < rows.count; i += kThreads) rows.potential[i] = next[i];
      __syncthreads();
      step_columns();
      __syncthreads();
    }
    double error = sweep_rows() + column_error() + stranded;
    double of_rows = inner(rows), of_columns = inner(columns), whole = rows.mass * columns.mass;
    double shift = balanced() ? (of_columns - of_rows) / (rows.mass + columns.mass) : 0;
    double value = stranded > 0 ? infinity<double>() : p.eps * (of_rows + of_columns + whole - columns.mass);
    if (!balanced()) {
      double lost = penalty(columns);
      value = p.reach * (penalty(rows) + lost) + p.eps * (whole - (columns.mass - lost));
    }
    for (int64_t i = threadIdx.x; i < rows.count; i += kThreads)
      p.f[i] = T(p.eps * (double(rows.takes_part(i) ? rows.potential[i] : next[i]) + shift));
    for (int64_t j = threadIdx.x; j < columns.count; j += kThreads)
      p.g[j] = T(p.eps * (double(columns.potential[j]) - shift));
    if (threadIdx.x == 0) *p.value = T(value), *p.error = T(error), *p.iterations = done;
  }

  __device__ void refuse() {
    T nan = std::numeric_limits<T>::quiet_NaN();
    for (int64_t i = threadIdx.x; i < rows.count; i += kThreads) p.f[i] = nan;
    for (int64_t j = threadIdx.x; j < columns.count; j += kThreads) p.g[j] = nan;
    if (threadIdx.x == 0) *p.value = *p.error = nan, *p.iterations = 0;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) sinkhorn_forward_kernel(TransportBatch<T> batch) {
  __shared__ T log_a[kMostPoints], f[kMostPoints], next[kMostPoints], log_b[kMostPoints], g[kMostPoints];
  TransportProblem<T> p = batch.problem(blockIdx.x);
  for (int64_t i = p.n + threadIdx.x; i < batch.rows; i += kThreads) p.f[i] = 0;
  for (int64_t j = p.m + threadIdx.x; j < batch.columns; j += kThreads) p.g[j] = 0;
  Solver<T> solver{p, {p.a, p.n, log_a, f, 0}, {p.b, p.m, log_b, g, 0}, next};
  bool valid = load_side<T>(solver.rows, nullptr, p.eps);
  valid = load_side<T>(solver.columns, p.start, p.eps) && valid;
  if (valid)
    solver.run();
  else
    solver.refuse();
}

template <class T>
void launch(const TransportBatch<T>& batch, cudaStream_t stream) {
  sinkhorn_forward_kernel<T><<<unsigned(batch.problems), kThreads, 0, stream>>>(batch);
  cudaError_t status = cudaGetLastError();
  STD_TORCH_CHECK(status == cudaSuccess,
                  "geokernels: the Sinkhorn kernel was not launched: ", cudaGetErrorString(status));
}

Solution sinkhorn(const Tensor& cost, const std::optional<Tensor>& a, const std::optional<Tensor>& b,
                  const std::optional<Tensor>& n, const std::optional<Tensor>& m,
                  const std::optional<Tensor>& start, double eps, double reach, int64_t max_iter,
                  double tol) {
  torch::stable::accelerator::DeviceGuard guard(cost.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(cost.get_device_index(), &stream));
  return solve_batch(cost, a, b, n, m, start, eps, reach, max_iter, tol,
                     [&](const auto& batch) { launch(batch, static_cast<cudaStream_t>(stream)); });
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CUDA, m) { m.impl("sinkhorn", TORCH_BOX(&geokernels::sinkhorn)); }
