// Entropic transport between large point clouds on the CPU: Sinkhorn's iteration in the log domain, and sums
// over the pairs of the plan, without a matrix of all pairs. The passes over the pairs are
// cpu/transport_clouds_kernel.h; blocks of rows are shared out to the threads.
//
//   raw_i = -log sum_j b_j exp(g_j - C_ij),   f_i = lambda raw_i,   lambda = rho / (rho + 1), 1 when balanced
//
// and the same for the other side. Costs, potentials and the penalty rho are in units of eps. A half-step
// starts from the raw potentials of the last one: the sums are then near 1, and say how far the row sums of
// the plan are from what they should be. Stopping and the meaning of the error are those of
// cpu/transport_kernel.h.

#include "core/transport_clouds.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "cpu/tensors.h"
#include "cpu/workers.h"
#include "transport_batch.h"

#define GEOKERNELS_KERNEL "cpu/transport_clouds_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// Points as the passes read them, and what belongs to each.
template <class T>
struct PackedCloud {
  int64_t count, whole;
  std::vector<T> panels, own, bias;

  PackedCloud(const T* points, int64_t n, int64_t features, PairCost cost) : count(n) {
    int64_t panel = GEOKERNELS_AT_LEVEL(cloud_panel<T>);
    whole = (n + panel - 1) / panel * panel;
    panels.resize(whole * features), own.resize(whole), bias.resize(whole, -kInfinity<T>);
    GEOKERNELS_AT_LEVEL(pack_cloud<T>, points, n, features, cost, panels.data(), own.data());
  }
};

template <class T>
CloudPass<T> pass_of(const PackedCloud<T>& rows, const PackedCloud<T>& columns, int64_t features,
                     PairCost cost, T p) {
  return {rows.panels.data(),
          columns.panels.data(),
          rows.bias.data(),
          columns.bias.data(),
          rows.count,
          columns.count,
          features,
          cost,
          p};
}

template <class T, class Work>
void each_block(int64_t rows, int64_t columns_of_sums, const Work& work) {
  int64_t block = GEOKERNELS_AT_LEVEL(cloud_block<T>);
  int64_t memory = GEOKERNELS_AT_LEVEL(cloud_memory<T>, columns_of_sums);
  share_out<T>((rows + block - 1) / block, memory, work);
}

// One side of a problem in the course of its solution.
template <class T>
struct Side {
  PackedCloud<T> cloud;
  std::vector<T> weight, log_weight, potential, raw, log_sum;
  double mass = 0;
  bool valid = true;

  Side(const T* points, const T* given, int64_t n, int64_t features, PairCost cost)
      : cloud(points, n, features, cost),
        weight(n),
        log_weight(n),
        potential(n, T(0)),
        raw(n, T(0)),
        log_sum(n) {
    for (int64_t i = 0; i < n; ++i) {
      weight[i] = given ? given[i] : T(1) / T(n);
      valid &= weight[i] >= 0 && weight[i] < kInfinity<T>;
      log_weight[i] = weight[i] > 0 ? std::log(weight[i]) : -kInfinity<T>;
      mass += weight[i];
    }
    valid &= mass > 0;
  }

  // L1 distance of this side's marginal from what it should be, once raw is that of the other side's
  // potential.
  double off(double reach) const {
    double total = 0;
    for (int64_t i = 0; i < cloud.count; ++i) {
      double wanted = reach < kInfinity<double> ? std::exp(-double(potential[i]) / reach) : 1;
      if (weight[i] > 0)
        total += weight[i] * std::fabs(std::exp(double(potential[i]) - double(raw[i])) - wanted);
    }
    return total;
  }

  double inner() const {
    double total = 0;
    for (int64_t i = 0; i < cloud.count; ++i)
      if (weight[i] > 0) total += double(weight[i]) * potential[i];
    return total;
  }

  // Adds a constant; returns by how much rounding can change the plan's mass.
  double move(double shift) {
    double lost = 0;
    for (int64_t i = 0; i < cloud.count; ++i) {
      double exact = double(potential[i]) + shift;
      potential[i] = T(exact);
      lost += weight[i] * std::fabs(double(potential[i]) - exact);
    }
    return lost;
  }
};

struct CloudOptions {
  int64_t features;
  PairCost cost;
  double p, reach;
  int64_t max_iter;
  double tol;
};

template <class T>
class CloudSinkhorn {
 public:
  CloudSinkhorn(const T* x, const T* y, const T* of_x, const T* of_y, int64_t n, int64_t m,
                const CloudOptions& options)
      : o(options),
        a(x, of_x, n, options.features, options.cost),
        b(y, of_y, m, options.features, options.cost) {
    balanced = !(o.reach < kInfinity<double>);
    lambda = balanced ? 1 : o.reach / (o.reach + 1);
  }

  bool valid() const { return a.valid && b.valid; }

  void run(const T* start) {
    if (start)
      for (int64_t j = 0; j < b.cloud.count; ++j) b.potential[j] = std::isfinite(start[j]) ? start[j] : T(0);
    double aim = o.tol;
    half_step(a, b, true);
    for (iterations = 1;; ++iterations) {
      for (size_t i = 0; i < a.raw.size(); ++i) a.potential[i] = T(lambda * a.raw[i]);
      half_step(b, a, iterations == 1);
      for (size_t j = 0; j < b.raw.size(); ++j) b.potential[j] = T(lambda * b.raw[j]);
      half_step(a, b, false);
      error = a.off(o.reach);
      if (error > aim && iterations < o.max_iter) continue;  // NaN stops
      double reached = error;
      finish();
      if (!(error > o.tol) || iterations >= o.max_iter || error - reached >= aim) break;
      aim -= error - reached;  // rounding the potentials cost this much: go on for as much less
    }
  }

  CloudOptions o;
  Side<T> a, b;
  double value = 0, error = 0;
  int64_t iterations = 0;

 private:
  void half_step(Side<T>& rows, Side<T>& columns, bool anywhere) {
    for (int64_t i = 0; i < rows.cloud.whole; ++i)
      rows.cloud.bias[i] = i < rows.cloud.count ? rows.cloud.own[i] + rows.raw[i] : T(0);
    for (int64_t j = 0; j < columns.cloud.count; ++j)
      columns.cloud.bias[j] = columns.cloud.own[j] + (columns.potential[j] + columns.log_weight[j]);
    std::fill(columns.cloud.bias.begin() + columns.cloud.count, columns.cloud.bias.end(), -kInfinity<T>);
    auto pass = pass_of(rows.cloud, columns.cloud, o.features, o.cost, T(o.p));
    each_block<T>(rows.cloud.count, 0, [&](int64_t block, T* memory) {
      GEOKERNELS_AT_LEVEL(sum_cloud_rows<T>, pass, block, anywhere, rows.log_sum.data(), memory);
    });
    for (size_t i = 0; i < rows.raw.size(); ++i) rows.raw[i] -= rows.log_sum[i];
  }

  // Potentials of points without mass, the value, and the constant that balanced potentials are free in.
  void finish() {
    for (size_t i = 0; i < a.raw.size(); ++i)
      if (!(a.weight[i] > 0)) a.potential[i] = T(lambda * a.raw[i]);
    double of_a = a.inner(), of_b = b.inner();
    value = balanced ? of_a + of_b - b.mass : penalised_gain();
    value += a.mass * b.mass;
    if (!balanced) return;
    double shift = (of_b - of_a) / (a.mass + b.mass);
    double lost = 2 * (a.move(shift) + b.move(-shift));
    if (!(lost > o.tol / 8)) return;
    half_step(a, b, false);
    half_step(b, a, false);
    error = a.off(o.reach) + b.off(o.reach);
  }

  // rho <a, 1 - exp(-f / rho)> and the same of b and g, less the plan, whose column sums are b exp(-g / rho).
  double penalised_gain() const {
    double gain = 0;
    for (size_t i = 0; i < a.weight.size(); ++i)
      gain -= a.weight[i] * o.reach * std::expm1(-double(a.potential[i]) / o.reach);
    for (size_t j = 0; j < b.weight.size(); ++j) {
      double lost = std::expm1(-double(b.potential[j]) / o.reach);
      gain -= b.weight[j] * (o.reach * lost + 1 + lost);
    }
    return gain;
  }

  bool balanced;
  double lambda;
};

// The shapes that every operator here checks its inputs against.
struct CloudShapes {
  std::vector<int64_t> batch;
  int64_t problems, n, m, features;

  CloudShapes(const Tensor& x, const Tensor& y) {
    STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim(), "geokernels: clouds must have two dimensions");
    ScalarType dtype = x.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                    "geokernels: clouds must be float32 or float64");
    batch.assign(x.sizes().begin(), x.sizes().end() - 2);
    n = x.size(-2), m = y.size(-2), features = x.size(-1);
    STD_TORCH_CHECK(n > 0 && m > 0 && features > 0, "geokernels: clouds must not be empty");
    problems = x.numel() / (n * features);
  }

  std::vector<int64_t> with(std::initializer_list<int64_t> last) const {
    std::vector<int64_t> shape = batch;
    shape.insert(shape.end(), last);
    return shape;
  }
};

int64_t within(const int64_t* lengths, int64_t k, int64_t most) {
  return lengths ? std::min(std::max<int64_t>(lengths[k], 1), most) : most;
}

PairCost checked_cost(int64_t cost) {
  STD_TORCH_CHECK(0 <= cost && cost <= int64_t(PairCost::power), "geokernels: no such cost, ", cost);
  return PairCost(cost);
}

template <class T>
struct CloudBatch {
  const CloudShapes& shapes;
  const T *x, *y, *a, *b, *start;
  const int64_t *n, *m;
  CloudOptions options;
  T *value, *f, *g, *error;
  int64_t* iterations;

  void solve() const {
    for (int64_t k = 0; k < shapes.problems; ++k) solve(k);
  }

  void solve(int64_t k) const {
    T *to_f = f + k * shapes.n, *to_g = g + k * shapes.m;
    std::fill(to_f, to_f + shapes.n, T(0));
    std::fill(to_g, to_g + shapes.m, T(0));
    int64_t rows = within(n, k, shapes.n), columns = within(m, k, shapes.m);
    CloudSinkhorn<T> problem(x + k * shapes.n * shapes.features, y + k * shapes.m * shapes.features,
                             a ? a + k * shapes.n : nullptr, b ? b + k * shapes.m : nullptr, rows, columns,
                             options);
    iterations[k] = 0;
    value[k] = error[k] = std::numeric_limits<T>::quiet_NaN();
    std::fill(to_f, to_f + rows, value[k]);
    std::fill(to_g, to_g + columns, value[k]);
    if (!problem.valid()) return;
    problem.run(start ? start + k * shapes.m : nullptr);
    value[k] = T(problem.value), error[k] = T(problem.error), iterations[k] = problem.iterations;
    std::copy(problem.a.potential.begin(), problem.a.potential.end(), to_f);
    std::copy(problem.b.potential.begin(), problem.b.potential.end(), to_g);
  }
};

template <class Work>
void with_type(const Tensor& like, const Work& work) {
  if (like.scalar_type() == ScalarType::Float)
    work(float());
  else
    work(double());
}

Solution sinkhorn_clouds(const Tensor& x_given, const Tensor& y_given, const std::optional<Tensor>& a,
                         const std::optional<Tensor>& b, const std::optional<Tensor>& n,
                         const std::optional<Tensor>& m, const std::optional<Tensor>& start, int64_t cost,
                         double p, double reach, int64_t max_iter, double tol) {
  Tensor x = torch::stable::contiguous(x_given), y = torch::stable::contiguous(y_given);
  CloudShapes shapes(x, y);
  ScalarType dtype = x.scalar_type();
  auto empty = [&](const std::vector<int64_t>& shape, ScalarType type) {
    return torch::stable::new_empty(x, shape, type);
  };
  Solution out{empty(shapes.batch, dtype), empty(shapes.with({shapes.n}), dtype),
               empty(shapes.with({shapes.m}), dtype), empty(shapes.batch, dtype),
               empty(shapes.batch, ScalarType::Long)};
  CloudOptions options{shapes.features, checked_cost(cost), p, reach, max_iter, tol};
  std::optional<Tensor> inputs[] = {whole(a), whole(b), whole(start), whole(n), whole(m)};
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    int64_t rows = shapes.problems * shapes.n, columns = shapes.problems * shapes.m;
    CloudBatch<T>{shapes,
                  read<T>(x),
                  input<T>(y, "y", x, columns * shapes.features, dtype),
                  input<T>(inputs[0], "a", x, rows, dtype),
                  input<T>(inputs[1], "b", x, columns, dtype),
                  input<T>(inputs[2], "start", x, columns, dtype),
                  input<int64_t>(inputs[3], "n", x, shapes.problems, ScalarType::Long),
                  input<int64_t>(inputs[4], "m", x, shapes.problems, ScalarType::Long),
                  options,
                  write<T>(std::get<0>(out)),
                  write<T>(std::get<1>(out)),
                  write<T>(std::get<2>(out)),
                  write<T>(std::get<3>(out)),
                  write<int64_t>(std::get<4>(out))}
        .solve();
  });
  return out;
}

// Two clouds, their potentials and what multiplies the pairs of one problem, packed.
template <class T>
struct PackedPairs {
  PackedCloud<T> x, y;
  std::optional<PackedCloud<T>> left, right;
  PairFactor<T> factor{nullptr, nullptr, 0};
  CloudPass<T> pass;

  PackedPairs(const CloudShapes& s, const T* x_points, const T* y_points, const T* f, const T* g,
              const T* left_rows, const T* right_rows, int64_t rank, PairCost cost, double p)
      : x(x_points, s.n, s.features, cost), y(y_points, s.m, s.features, cost) {
    for (int64_t i = 0; i < s.n; ++i) x.bias[i] = x.own[i] + f[i];
    for (int64_t j = 0; j < s.m; ++j) y.bias[j] = y.own[j] + g[j];
    pass = pass_of(x, y, s.features, cost, T(p));
    if (!left_rows) return;
    left.emplace(left_rows, s.n, rank, PairCost::dot), right.emplace(right_rows, s.m, rank, PairCost::dot);
    factor = {left->panels.data(), right->panels.data(), rank};
  }
};

// The tensors of a sum over pairs, checked; work(PackedPairs<T>, problem) is called for each problem.
template <class Work>
void each_pair_of_clouds(const CloudShapes& s, const Tensor& x, const Tensor& y, const Tensor& f,
                         const Tensor& g, const std::optional<Tensor>& left,
                         const std::optional<Tensor>& right, PairCost cost, double p, const Work& work) {
  STD_TORCH_CHECK(left.has_value() == right.has_value() && (!left || left->size(-1) == right->size(-1)),
                  "geokernels: left and right come together, with the same rank");
  int64_t rank = left ? left->size(-1) : 0;
  STD_TORCH_CHECK(!left || rank > 0, "geokernels: left and right must have a rank");
  std::optional<Tensor> inputs[] = {whole(f), whole(g), whole(left), whole(right)};
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    ScalarType dtype = x.scalar_type();
    int64_t rows = s.problems * s.n, columns = s.problems * s.m;
    const T* y_points = input<T>(y, "y", x, columns * s.features, dtype);
    const T* of_x = input<T>(inputs[0], "f", x, rows, dtype);
    const T* of_y = input<T>(inputs[1], "g", x, columns, dtype);
    const T* left_rows = input<T>(inputs[2], "left", x, rows * rank, dtype);
    const T* right_rows = input<T>(inputs[3], "right", x, columns * rank, dtype);
    for (int64_t k = 0; k < s.problems; ++k)
      work(PackedPairs<T>(s, read<T>(x) + k * s.n * s.features, y_points + k * s.m * s.features,
                          of_x + k * s.n, of_y + k * s.m, left_rows ? left_rows + k * s.n * rank : nullptr,
                          right_rows ? right_rows + k * s.m * rank : nullptr, rank, cost, p),
           k);
  });
}

// sum_j E_ij <left_i, right_j> v_j, E_ij = exp(f_i + g_j - C_ij)
Tensor multiply_clouds(const Tensor& x_given, const Tensor& y_given, const Tensor& f, const Tensor& g,
                       const std::optional<Tensor>& left, const std::optional<Tensor>& right,
                       const Tensor& v_given, int64_t cost, double p) {
  Tensor x = torch::stable::contiguous(x_given), y = torch::stable::contiguous(y_given);
  Tensor v = torch::stable::contiguous(v_given);
  CloudShapes s(x, y);
  int64_t columns = v.size(-1);
  Tensor out = torch::stable::new_empty(x, s.with({s.n, columns}), x.scalar_type());
  if (columns == 0) return out;
  each_pair_of_clouds(s, x, y, f, g, left, right, checked_cost(cost), p, [&](const auto& pairs, int64_t k) {
    using T = std::remove_cv_t<std::remove_reference_t<decltype(pairs.pass.p)>>;
    const T* of_v = input<T>(v, "v", x, s.problems * s.m * columns, x.scalar_type()) + k * s.m * columns;
    T* to = write<T>(out) + k * s.n * columns;
    each_block<T>(s.n, columns, [&](int64_t block, T* memory) {
      GEOKERNELS_AT_LEVEL(multiply_cloud<T>, pairs.pass, block, pairs.factor, of_v, columns, to, memory);
    });
  });
  return out;
}

// sum_j E_ij <left_i, right_j> dC_ij / dx_i, for the costs whose derivative is no product
Tensor differentiate_clouds(const Tensor& x_given, const Tensor& y_given, const Tensor& f, const Tensor& g,
                            const Tensor& left, const Tensor& right, int64_t cost_given, double p) {
  Tensor x = torch::stable::contiguous(x_given), y = torch::stable::contiguous(y_given);
  CloudShapes s(x, y);
  PairCost cost = checked_cost(cost_given);
  STD_TORCH_CHECK(cost == PairCost::root || cost == PairCost::power,
                  "geokernels: the derivative of a Gram cost is a product");
  Tensor out = torch::stable::new_empty(x, s.with({s.n, s.features}), x.scalar_type());
  each_pair_of_clouds(s, x, y, f, g, left, right, cost, p, [&](const auto& pairs, int64_t k) {
    using T = std::remove_cv_t<std::remove_reference_t<decltype(pairs.pass.p)>>;
    const T *of_x = read<T>(x) + k * s.n * s.features, *of_y = read<T>(y) + k * s.m * s.features;
    T* to = write<T>(out) + k * s.n * s.features;
    each_block<T>(s.n, s.features, [&](int64_t block, T* memory) {
      GEOKERNELS_AT_LEVEL(differentiate_cloud<T>, pairs.pass, block, pairs.factor, of_x, of_y, to, memory);
    });
  });
  return out;
}

}  // namespace
}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("sinkhorn_clouds", TORCH_BOX(&geokernels::sinkhorn_clouds));
  m.impl("multiply_clouds", TORCH_BOX(&geokernels::multiply_clouds));
  m.impl("differentiate_clouds", TORCH_BOX(&geokernels::differentiate_clouds));
}
