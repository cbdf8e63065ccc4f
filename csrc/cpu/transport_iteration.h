// Sinkhorn's iteration for one problem of at most kMostPoints a side.
//
//   P_ij = a_i u_i K_ij v_j b_j,      K_ij = exp(phi_i + gamma_j - C_ij / eps)
//   u_i = 1 / sum_j K_ij v_j b_j,     v_j = 1 / sum_i K_ij u_i a_i
//   f_i = eps (phi_i + log u_i),      g_j = eps (gamma_j + log v_j)
//
// with a marginal penalty reach = rho, lambda = rho / (rho + eps) and s the sum above, the scaling is
// u_i = s_i^-lambda exp(-(1 - lambda) phi_i) instead.
//
// Scaling costs two multiply-adds an entry where the log domain costs two exponentials. phi and gamma
// keep it in range: K starts with every row's largest entry 1, which makes the first half-steps those
// of the log domain, and whenever a sum leaves [1/kReach, kReach] the scalings are absorbed and K is
// computed anew, every row's (or column's) largest entry 1 again. An entry lost to underflow before that is
// below rounding error in its row and its column.
//
// One sweep over K serves both sides: a block of rows, as many as the vector has lanes, takes its dot
// products with v b, turns them into u, and adds its u a K to the column sums while still in L1.
// K is [rows, cols], padded to whole vectors with zeros. One thread solves one problem, and K with its few
// vectors is all the memory that the problem needs.
//
// A point of zero weight takes no part (its phi is -inf, its row of K zero); its potential is computed
// at the end from the other side. A point that cannot reach any mass ends with potential +inf.
//
// Sums and products are in T, the value and the masses in float64. The order of summation depends on the
// sizes and the vector width alone: results repeat from run to run, for any number of threads.
//
// Stopping: sum |row sums of P - a| <= tol, after the column step that makes the column sums exact (with a
// penalty: against a exp(-f / rho)). The error returned is that of the potentials returned: where rounding
// them to T may matter, both marginals are computed again from f and g, and the iteration goes on if that
// error is larger than tol.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T, bool Balanced>
class Sinkhorn {
 public:
  static constexpr int64_t width = Vector<T>::width;
  static int64_t whole_vectors(int64_t count) { return round_up(count, width); }
  static int64_t workspace(int64_t n, int64_t m) {
    Workspace<T> counted;
    T *of_rows[kRowArrays], *of_columns[kColumnArrays];
    lay_out(counted, whole_vectors(n), whole_vectors(m), of_rows, of_columns);
    return counted.taken();
  }

  Sinkhorn(const TransportProblem<T>& problem, Workspace<T> memory, Watch& watch)
      : p(problem),
        pace(watch),
        rows(whole_vectors(p.n)),
        cols(whole_vectors(p.m)),
        inverse_eps(T(1 / p.eps)),
        scaling(p.eps, p.reach) {
    T** row_arrays[kRowArrays] = {&a, &phi, &u, &log_u, &next, &log_next, &left};
    T** column_arrays[kColumnArrays] = {&b, &gamma, &v, &log_v, &right, &column, &top};
    T *of_rows[kRowArrays], *of_columns[kColumnArrays];
    K = lay_out(memory, rows, cols, of_rows, of_columns);
    for (int k = 0; k < kRowArrays; ++k) *row_arrays[k] = of_rows[k];
    for (int k = 0; k < kColumnArrays; ++k) *column_arrays[k] = of_columns[k];
  }

  void run() {
    if (!load_side(p.a, p.n, rows, a, phi, mass_a) || !load_side(p.b, p.m, cols, b, gamma, mass_b)) {
      refuse();
      return;
    }
    for (int64_t j = 0; p.start && j < p.m; ++j)
      if (b[j] > 0 && std::isfinite(p.start[j])) gamma[j] = T(p.start[j] / p.eps);
    Aim aim(p.tol, p.max_iter);
    int64_t done = 0;
    renew_rows();
    for (; !pace.stop(2 * rows * cols); ++done) {
      bool trusted = sweep();
      double error = row_error + stranded;
      if (!trusted && std::isnan(error)) error = inf;  // a scaling has overflowed
      if (done > 0 && aim.reached(error, done)) {
        if (aim.satisfied(error, finish(error), done)) break;
        trusted = false;
      }
      const double by =
          !Balanced && done > 0 ? best_constant<T>(row_wanted, column_wanted, p.reach / p.eps) : 0;
      if (!trusted || std::fabs(by) > Scaling<T>::kMostLift) {
        absorb(v, log_v, gamma, cols);
        for (int64_t j = 0; by != 0 && j < cols; ++j) gamma[j] = T(gamma[j] - by);
        renew_rows();
        sweep();
        if (std::isnan(row_error)) {  // this time it comes from the costs
          finish(row_error);
          ++done;
          break;
        }
      } else if (by != 0) {
        lift(by);
      }
      std::swap(u, next);
      std::swap(log_u, log_next);
      if (!scale_columns()) renew_columns();
    }
    *p.iterations = done;
  }

 private:
  static constexpr int kRowArrays = 7, kColumnArrays = 7;
  static constexpr T inf = std::numeric_limits<T>::infinity();
  static constexpr T kReach = Scaling<T>::kReach;

  // The arrays of both sides; K is returned.
  static T* lay_out(Workspace<T>& memory, int64_t rows, int64_t cols, T* (&of_rows)[kRowArrays],
                    T* (&of_columns)[kColumnArrays]) {
    for (T*& array : of_rows) array = memory.take(rows);
    for (T*& array : of_columns) array = memory.take(cols);
    return memory.take(rows * cols);
  }

  // Copies weights and marks the points that take no part; false if one is negative or NaN, or all are 0.
  bool load_side(const T* weight, int64_t count, int64_t whole, T* to, T* potential, double& mass) {
    mass = 0;
    bool valid = true;
    for (int64_t i = 0; i < whole; ++i) {
      T w = i >= count ? T(0) : weight ? weight[i] : T(1) / T(count);
      valid &= w >= 0 && w < inf;
      to[i] = w;
      potential[i] = w > 0 ? T(0) : -inf;
      mass += w;
    }
    return valid && mass > 0;
  }

  void refuse() {
    T nan = std::numeric_limits<T>::quiet_NaN();
    std::fill(p.f, p.f + p.n, nan);
    std::fill(p.g, p.g + p.m, nan);
    *p.value = *p.error = nan;
    *p.iterations = 0;
  }

  // Moves a scaling into its potential. With a penalty the logarithm is at hand, and does not underflow.
  void absorb(T* scale, T* log_scale, T* potential, int64_t whole) {
    for (int64_t i = 0; i < whole; i += width) {
      vec<T> step = Balanced ? log<T>(load(scale + i)) : load(log_scale + i);
      store(potential + i, load(potential + i) + step);
      store(scale + i, broadcast<T>(1));
      store(log_scale + i, vec<T>{});
    }
  }

  // Calls each(j, costs) for the vectors of row i; what lies beyond it is 0, where gamma is -inf.
  template <class Each>
  void each_cost(int64_t i, const Each& each) const {
    const T* c = p.cost + i * p.stride;
    int64_t j = 0;
    for (; j + width <= p.m; j += width) each(j, load(c + j));
    if (j < p.m) each(j, load_first(c + j, p.m - j));
  }

  // A point has mass and nowhere to send it.
  void strand(T* weight, T* potential, int64_t i) {
    if (Balanced) stranded += weight[i];
    weight[i] = 0;
    potential[i] = -inf;
  }

  // Takes f and g to f + by and g - by, after the sweep that computed the next u from the old g.
  void lift(double by) {
    const T step = T(scaling.lambda * by), times = T(std::exp(double(step)));
    for (int64_t i = 0; i < rows; i += width) {
      store(next + i, load(next + i) * times);
      store(log_next + i, load(log_next + i) + step);
    }
    for (int64_t j = 0; j < cols; j += width) store(column + j, load(column + j) * times);
  }

  // Makes K with every row's largest entry 1, from gamma alone; v and u start at 1.
  void renew_rows() {
    std::fill(v, v + cols, T(1)), std::fill(log_v, log_v + cols, T(0));
    std::copy(b, b + cols, right);
    std::fill(u, u + rows, T(1)), std::fill(log_u, log_u + rows, T(0));
    for (int64_t i = 0; i < rows; ++i) {
      T* row = K + i * cols;
      if (!(a[i] > 0)) {
        std::fill(row, row + cols, T(0));
        continue;
      }
      vec<T> best = broadcast<T>(-inf);
      each_cost(i, [&](int64_t j, vec<T> c) {
        vec<T> x = load(gamma + j) - c * inverse_eps;
        best = max<T>(best, x);
        store(row + j, x);
      });
      T most = largest<T>(best);
      phi[i] = -most;
      if (most == -inf) strand(a, phi, i), most = 0;
      for (int64_t j = 0; j < cols; j += width) store(row + j, exp<T>(load(row + j) - most));
    }
  }

  // Makes K with every column's largest entry 1, from phi and u alone, and takes the column step.
  void renew_columns() {
    absorb(u, log_u, phi, rows);
    std::fill(top, top + cols, -inf);
    std::fill(column, column + cols, T(0));
    for (int64_t i = 0; i < p.n; ++i) {
      if (!(a[i] > 0)) continue;
      each_cost(
          i, [&](int64_t j, vec<T> c) { store(top + j, max<T>(load(top + j), phi[i] - c * inverse_eps)); });
    }
    for (int64_t j = 0; j < p.m; ++j) {
      if (!(b[j] > 0)) continue;
      gamma[j] = -top[j];
      if (top[j] == -inf) strand(b, gamma, j);
    }
    for (int64_t i = 0; i < p.n; ++i) {
      if (!(a[i] > 0)) continue;
      T* row = K + i * cols;
      each_cost(i, [&](int64_t j, vec<T> c) {
        vec<T> e = exp<T>((phi[i] - c * inverse_eps) + load(gamma + j));
        store(row + j, e);
        store(column + j, load(column + j) + e * a[i]);
      });
    }
    scale_columns();
  }

  // Row sums of the present plan, their error and with a penalty the mass that the rows ask for; the next u,
  // and the column sums that go with it. False when the row sums are not to be trusted.
  bool sweep() {
    std::fill(column, column + cols, T(0));
    vec<T> wrong = {}, asked = {}, trusted = broadcast<T>(1);
    for (int64_t i = 0; i < rows; i += width) {
      const T* block = K + i * cols;
      vec<T> dot[width] = {};
      for (int64_t j = 0; j < cols; j += width) {
        vec<T> r = load(right + j);
#pragma GCC unroll 16
        for (int64_t k = 0; k < width; ++k) dot[k] += load(block + k * cols + j) * r;
      }
      vec<T> sums = sum_each<T>(dot), weight = load(a + i), potential = load(phi + i);
      const vec<T> found = load(u + i) * sums, wanted = scaling.wanted(Balanced, potential, load(log_u + i));
      // on its way to a solution a marginal may overflow, which is no reason to stop
      const vec<T> off = wanted < inf ? found - wanted : wanted;
      wrong += weight > T(0) ? weight * (off < T(0) ? -off : off) : vec<T>{};
      if constexpr (!Balanced) asked += weight > T(0) ? weight * wanted : vec<T>{};
      const Step<vec<T>> step = scaling.step(Balanced, sums, potential);
      trusted = in_range(step.sum) ? trusted : vec<T>{};
      store(next + i, step.scale);
      store(log_next + i, step.log_scale);
      const vec<T> scaled = scaling.scaled(Balanced, step.scale, weight);
      store(left + i, scaled);
      vec<T> each[width];
#pragma GCC unroll 16
      for (int64_t k = 0; k < width; ++k) each[k] = broadcast<T>(scaled[k]);
      for (int64_t j = 0; j < cols; j += width) {
        vec<T> c = load(column + j);
#pragma GCC unroll 16
        for (int64_t k = 0; k < width; ++k) c += load(block + k * cols + j) * each[k];
        store(column + j, c);
      }
    }
    row_error = sum<T>(wrong);
    if constexpr (!Balanced) row_wanted = sum<T>(asked);
    return !any<T>(trusted == T(0));
  }

  // False for NaN as well: a scaling has overflowed then, but not its logarithm.
  static auto in_range(vec<T> sum) { return (sum >= 1 / kReach) & (sum <= kReach); }

  // v from the column sums, and with a penalty the mass that the columns ask for; false when the sums are not
  // to be trusted.
  bool scale_columns() {
    vec<T> asked = {}, trusted = broadcast<T>(1);
    for (int64_t j = 0; j < cols; j += width) {
      const vec<T> weight = load(b + j), potential = load(gamma + j);
      const Step<vec<T>> step = scaling.step(Balanced, load(column + j), potential);
      trusted = in_range(step.sum) ? trusted : vec<T>{};
      store(v + j, step.scale);
      store(log_v + j, step.log_scale);
      store(right + j, scaling.scaled(Balanced, step.scale, weight));
      if constexpr (!Balanced)
        asked += weight > T(0) ? weight * scaling.wanted(Balanced, potential, step.log_scale) : vec<T>{};
    }
    if constexpr (!Balanced) column_wanted = sum<T>(asked);
    return !any<T>(trusted == T(0));
  }

  // cpu/transport_result.h
  double finish(double error);
  double transform(const T* weight, const T* potential, int64_t count, const T* cost, int64_t step) const;
  SideSums side_sums(const T* given, const T* weight, const T* potential, int64_t count, double mass) const;
  PairSums pair_sums(double level) const;
  double measured_error();

  const TransportProblem<T>& p;
  Pace pace;
  const int64_t rows, cols;  // n and m, in whole vectors
  const T inverse_eps;
  const Scaling<T> scaling;
  double mass_a = 0, mass_b = 0;
  double stranded = 0;                              // mass that no admissible pair can take
  double row_error = 0;                             // of the plan that the last sweep read
  double row_wanted = 0, column_wanted = 0;         // the masses that the potentials of both sides ask for
  T *a, *phi, *u, *log_u, *next, *log_next, *left;  // [rows]; left is u a
  T *b, *gamma, *v, *log_v, *right, *column, *top;  // [cols]; right is v b
  T* K;                                             // [rows, cols]
};

}  // namespace geokernels::GEOKERNELS_LEVEL
