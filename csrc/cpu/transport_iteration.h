// Sinkhorn's iteration for one problem whose costs are given.
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
// One sweep over K serves both sides (cpu/transport_sweep.h): a block of rows, as many as the vector has
// lanes, takes its dot products with v b, turns them into u, and adds its u a K to the column sums while
// still in the cache. K is padded to whole vectors with zeros, and lies as a sweep reads it: of a block of
// rows the first vectors, then the second ones. Where it would not fit into memory its blocks are made from
// the costs in each sweep, by the same formulas.
//
// Rows are swept in groups, each with column sums of its own, which are added in their order. A problem of up
// to kMostPoints rows is one group, and one thread solves it; the groups of a larger one may go to several.
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

  // What is needed beside the problem; `stored` says whether K is kept, `together` whether a crew, which has
  // memory of its own, works on it.
  static int64_t workspace(int64_t n, int64_t m, bool stored, bool together) {
    Workspace<T> counted;
    Room(counted, n, m, stored, together);
    return counted.taken();
  }

  // crew: null for a thread that works alone
  Sinkhorn(const TransportProblem<T>& problem, bool stored, const Crew<T>* crew, Workspace<T> memory,
           Watch& watch)
      : p(problem),
        pace(watch),
        crew(crew),
        stored(stored),
        rows(whole_vectors(p.n)),
        cols(whole_vectors(p.m)),
        groups(row_groups(p.n)),
        inverse_eps(T(1 / p.eps)),
        scaling(p.eps, p.reach) {
    const Room room(memory, p.n, p.m, stored, crew);
    T** row_arrays[kRowArrays] = {&a, &phi, &u, &log_u, &next, &log_next};
    T** column_arrays[kColumnArrays] = {&b, &gamma, &v, &log_v, &right, &top};
    for (int k = 0; k < kRowArrays; ++k) *row_arrays[k] = room.of_rows[k];
    for (int k = 0; k < kColumnArrays; ++k) *column_arrays[k] = room.of_columns[k];
    column = room.sums, tallies = room.tallies, K = room.K;
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
  static constexpr int kRowArrays = 6, kColumnArrays = 6;
  static constexpr T inf = std::numeric_limits<T>::infinity();
  static constexpr T kReach = Scaling<T>::kReach;

  // What a group of rows found.
  struct Tally {
    double off, wanted, stranded;
    bool trusted;
    PairSums pairs;
  };

  struct Room {
    T *of_rows[kRowArrays], *of_columns[kColumnArrays];
    T* sums;  // [groups, cols]
    Tally* tallies;
    T* K;

    Room(Workspace<T>& memory, int64_t n, int64_t m, bool stored, bool together) {
      const int64_t rows = whole_vectors(n), cols = whole_vectors(m), groups = row_groups(n);
      for (T*& array : of_rows) array = memory.take(rows);
      for (T*& array : of_columns) array = memory.take(cols);
      sums = memory.take(groups * cols);
      tallies = memory.template take_as<Tally>(groups);
      K = stored ? memory.take(rows * cols) : together ? nullptr : memory.take(width * cols);
    }
  };

  // Calls work(group, width rows of memory, where K is not stored) for every group of rows.
  template <class Work>
  void each_group(const Work& work) {
    if (!crew) {
      for (int64_t group = 0; group < groups; ++group) work(group, K);
      return;
    }
    const std::pair<const Work*, int64_t> given(&work, stored ? 0 : width * cols);
    Workspace<T> counted;
    counted.take(given.second);
    crew->each(
        groups, counted.taken(),
        [](const void* from, int64_t group, Workspace<T> own) {
          const auto& to = *static_cast<const std::pair<const Work*, int64_t>*>(from);
          (*to.first)(group, own.take(to.second));
        },
        &given);
  }

  // By the number of rows alone: for a thread many times what it takes to wake it, and for many threads
  // enough.
  static constexpr int64_t kLeastRows = 128, kMostGroups = 64;

  static int64_t rows_of_group(int64_t n) {
    return n <= kMostPoints
               ? kMostPoints
               : std::max(kLeastRows, round_up((n + kMostGroups - 1) / kMostGroups, kLeastRows / 2));
  }

  static int64_t row_groups(int64_t n) { return (n + rows_of_group(n) - 1) / rows_of_group(n); }

  // Where the first vector of row i is in K; the next are width * width numbers apart.
  int64_t row_of_K(int64_t i) const { return i / width * width * cols + i % width * width; }

  int64_t first_row(int64_t group) const { return std::min(rows, group * rows_of_group(p.n)); }

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

  // The costs of row i from j on, fewer than a vector; zeros behind them. A whole vector is read where it
  // ends within the costs, as copying a part of one takes a call.
  vec<T> load_last(int64_t i, int64_t j) const {
    const T* from = p.cost + i * p.stride + j;
    const int64_t count = p.m - j;
    if (p.cost + (p.n - 1) * p.stride + p.m < from + width) return load_first(from, count);
    typename Vector<T>::mask lane;
    for (int64_t k = 0; k < width; ++k) lane[k] = k;
    return lane < typename Vector<T>::Integer(count) ? load(from) : vec<T>{};
  }

  // Calls each(j, costs) for the vectors of row i; what lies beyond it is 0, where gamma is -inf.
  template <class Each>
  void each_cost(int64_t i, const Each& each) const {
    const T* c = p.cost + i * p.stride;
    int64_t j = 0;
    for (; j + width <= p.m; j += width) each(j, load(c + j));
    if (j < p.m) each(j, load_last(i, j));
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

  // False for NaN as well: a scaling has overflowed then, but not its logarithm.
  static auto in_range(vec<T> sum) { return (sum >= 1 / kReach) & (sum <= kReach); }

  // cpu/transport_sweep.h
  void make_row(int64_t i, T* row) const;
  void renew_rows();
  void renew_columns();
  bool sweep();
  void sweep_group(int64_t group, T* made);
  void add_groups();
  bool scale_columns();

  // cpu/transport_result.h
  double finish(double error);
  double transform(const T* weight, const T* potential, int64_t count, const T* cost, int64_t step) const;
  SideSums side_sums(const T* given, const T* weight, const T* potential, int64_t count, double mass) const;
  PairSums pair_sums(double level);
  double measured_error();

  const TransportProblem<T>& p;
  Pace pace;
  const Crew<T>* crew;
  const bool stored;
  const int64_t rows, cols;  // n and m, in whole vectors
  const int64_t groups;
  const T inverse_eps;
  const Scaling<T> scaling;
  bool by_rows = true;  // whether K was made with a largest entry of 1 in every row, or column
  double mass_a = 0, mass_b = 0;
  double stranded = 0;                       // mass that no admissible pair can take
  double row_error = 0;                      // of the plan that the last sweep read
  double row_wanted = 0, column_wanted = 0;  // the masses that the potentials of both sides ask for
  T *a, *phi, *u, *log_u, *next, *log_next;  // [rows]
  T *b, *gamma, *v, *log_v, *right, *top;    // [cols]; right is v b
  T* column;                                 // [groups, cols]; once they are added, the first are the sums
  Tally* tallies;                            // [groups]
  T* K;  // [rows / width, cols / width, width, width], or one block that a thread makes anew
};

}  // namespace geokernels::GEOKERNELS_LEVEL
