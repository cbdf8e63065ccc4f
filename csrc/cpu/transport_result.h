// What is returned of a small transport problem, once its potentials are found: the value, f and g, and the
// error of these.
//
// The potentials phi and gamma are in units of eps; a point that takes no part has weight 0 here, whatever it
// was given. Masses and the value are in float64.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

// Calls each(j, costs) for the vectors of row i; the last is filled up with zeros.
template <class T, class Each>
inline void each_cost(const TransportProblem<T>& p, int64_t i, const Each& each) {
  constexpr int64_t width = Vector<T>::width;
  const T* c = p.cost + i * p.stride;
  int64_t j = 0;
  for (; j + width <= p.m; j += width) each(j, load(c + j));
  if (j < p.m) each(j, load_first(c + j, p.m - j));
}

// The weights and potentials of one side, in whole vectors.
template <class T>
struct SideResult {
  const T *weight, *potential;
  double mass;
};

template <class T, bool Balanced>
class Result {
 public:
  // column, top: [m, in whole vectors], for scratch; lambda: reach / (reach + eps); stranded: mass that no
  // admissible pair can take.
  Result(const TransportProblem<T>& problem, const SideResult<T>& a, const SideResult<T>& b, T* column,
         T* top, T inverse_eps, T lambda, double stranded)
      : p(problem),
        a(a),
        b(b),
        column(column),
        top(top),
        inverse_eps(inverse_eps),
        lambda(lambda),
        stranded(stranded) {}

  // Writes value, f, g and their error, which is `error` where rounding them cannot matter; returns it.
  double write(double error) const {
    const double most = std::max(largest_of(a, p.n), largest_of(b, p.m)), reach = p.reach / p.eps;
    const SideSums of_a = side_sums(p.a, a, p.n), of_b = side_sums(p.b, b, p.m);
    double value = dual_value(of_a, of_b, reach);
    if (is_below_eps(value, of_a, of_b))
      value = value_of_pairs(value, of_a, of_b, pair_sums(level_of(of_a, reach)), reach);
    *p.value = T(p.eps * value);
    const double shift = Balanced && stranded == 0 ? (of_b.gain - of_a.gain) / (a.mass + b.mass) : 0;
    if (most + std::fabs(shift) > kMostPotential<T>) {
      refuse();
      return *p.error;
    }
    write_potentials(shift);
    // rounding f and g moves an entry of P by this much, relatively, at most
    const double rounding = 4 * std::numeric_limits<T>::epsilon() * (most + std::fabs(shift));
    if (rounding * a.mass > p.tol / 8) error = measured_error() + stranded;
    *p.error = T(error);
    return error;
  }

  // NaN throughout.
  void refuse() const {
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    std::fill(p.f, p.f + p.n, nan);
    std::fill(p.g, p.g + p.m, nan);
    *p.value = *p.error = nan;
  }

 private:
  static constexpr T inf = std::numeric_limits<T>::infinity();

  static double largest_of(const SideResult<T>& side, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; ++i)
      if (side.weight[i] > 0) most = std::max(most, std::fabs(double(side.potential[i])));
    return most;
  }

  // f and g; f takes the constant that balanced potentials are free in, and g loses it.
  void write_potentials(double shift) const {
    for (int64_t i = 0; i < p.n; ++i) {
      const double potential =
          a.weight[i] > 0 ? double(a.potential[i]) : transform(b, p.m, p.cost + i * p.stride, 1);
      p.f[i] = T(p.eps * (potential + shift));
    }
    for (int64_t j = 0; j < p.m; ++j) {
      const double potential =
          b.weight[j] > 0 ? double(b.potential[j]) : transform(a, p.n, p.cost + j, p.stride);
      p.g[j] = T(p.eps * (potential - shift));
    }
  }

  // The potential, in units of eps, that the other side gives to a point without mass.
  double transform(const SideResult<T>& other, int64_t count, const T* cost, int64_t step) const {
    double most = -inf, total = 0;
    for (int64_t k = 0; k < count; ++k)
      if (other.weight[k] > 0)
        most = std::max(most, double(other.potential[k]) - double(cost[k * step]) / p.eps);
    if (most == -inf) return inf;
    for (int64_t k = 0; k < count; ++k)
      if (other.weight[k] > 0)
        total +=
            other.weight[k] * std::exp(double(other.potential[k]) - double(cost[k * step]) / p.eps - most);
    return -double(lambda) * (most + std::log(total));
  }

  // What one side adds to the value; the gain of a stranded point is at its bound.
  SideSums side_sums(const T* given, const SideResult<T>& side, int64_t count) const {
    SideSums sums;
    sums.mass = side.mass;
    for (int64_t i = 0; i < count; ++i) {
      const double w = given ? double(given[i]) : side.mass / count;
      if (w > 0) sums.add(w, side.weight[i] > 0 ? double(side.potential[i]) : double(inf), p.reach / p.eps);
    }
    return sums;
  }

  // What the pairs add where the costs are below eps.
  PairSums pair_sums(double level) const {
    PairSums sums;
    for (int64_t i = 0; i < p.n; ++i) {
      if (!(a.weight[i] > 0)) continue;
      const T own = T(a.potential[i] + level);
      vec<T> cost = {}, rest = {}, constant = {};
      each_cost(p, i, [&](int64_t j, vec<T> c) {
        const vec<T> weight = load(b.weight + j), sum = own + load(b.potential + j);
        const vec<T> scaled = c * inverse_eps, zero = {};
        const auto meets = c < inf;
        cost += weight > T(0) ? weight * (meets ? scaled : zero + T(1)) : zero;
        rest += weight > T(0) ? weight * (meets ? exp_rest<T>(sum - scaled) : -sum) : zero;
        constant += weight > T(0) ? weight * (meets ? exp_rest<T>(-scaled) : zero) : zero;
      });
      sums.add(a.weight[i], {sum<T>(cost), sum<T>(rest), sum<T>(constant)});
    }
    return sums;
  }

  // Both marginals of the plan of f and g as returned, against what they should be.
  double measured_error() const {
    const int64_t whole = round_up(p.m, Vector<T>::width);
    std::fill(column, column + whole, T(0));
    std::fill(top, top + whole, -inf);
    for (int64_t j = 0; j < p.m; ++j)
      if (b.weight[j] > 0) top[j] = p.g[j];
    double wrong = 0;
    for (int64_t i = 0; i < p.n; ++i) {
      if (!(a.weight[i] > 0)) continue;
      vec<T> total = {};
      each_cost(p, i, [&](int64_t j, vec<T> c) {
        const vec<T> e = exp<T>(((load(top + j) + p.f[i]) - c) * inverse_eps);
        total += e * load(b.weight + j);
        store(column + j, load(column + j) + e * a.weight[i]);
      });
      wrong += a.weight[i] * std::fabs(sum<T>(total) - wanted(p.f[i]));
    }
    for (int64_t j = 0; j < p.m; ++j)
      if (b.weight[j] > 0) wrong += b.weight[j] * std::fabs(column[j] - wanted(p.g[j]));
    return wrong;
  }

  // What a marginal should be, as a fraction of the weight.
  auto wanted(T potential) const { return Balanced ? 1 : std::exp(-potential / p.reach); }

  const TransportProblem<T>& p;
  const SideResult<T> a, b;
  T *const column, *const top;
  const T inverse_eps, lambda;
  const double stranded;
};

}  // namespace geokernels::GEOKERNELS_LEVEL
