// Sinkhorn's kernel matrix and the sweeps over it, group of rows by group. Members of the class of
// cpu/transport_iteration.h.
//
// No include guard: included once for every SIMD level.

#include "cpu/transport_iteration.h"

namespace geokernels::GEOKERNELS_LEVEL {

// Row i of K, whose first vector is at `row`.
template <class T, bool Balanced>
inline void Sinkhorn<T, Balanced>::make_row(int64_t i, T* row) const {
  if (!(a[i] > 0)) {
    for (int64_t j = 0; j < cols; j += width) store(row + j * width, vec<T>{});
    return;
  }
  // in the order that makes the largest entry 1, to the bit
  const T own = phi[i];
  if (by_rows)
    each_cost(i, [&](int64_t j, vec<T> c) {
      store(row + j * width, exp<T>((load(gamma + j) - c * inverse_eps) + own));
    });
  else
    each_cost(i, [&](int64_t j, vec<T> c) {
      store(row + j * width, exp<T>((own - c * inverse_eps) + load(gamma + j)));
    });
}

// Makes K with every row's largest entry 1, from gamma alone; v and u start at 1.
template <class T, bool Balanced>
inline void Sinkhorn<T, Balanced>::renew_rows() {
  std::fill(v, v + cols, T(1)), std::fill(log_v, log_v + cols, T(0));
  std::copy(b, b + cols, right);
  std::fill(u, u + rows, T(1)), std::fill(log_u, log_u + rows, T(0));
  by_rows = true;
  each_group([&](int64_t group, T*) {
    double lost = 0;
    for (int64_t i = first_row(group), end = first_row(group + 1); i < end; ++i) {
      if (a[i] > 0) {
        vec<T> best = broadcast<T>(-inf);
        each_cost(i, [&](int64_t j, vec<T> c) { best = max<T>(best, load(gamma + j) - c * inverse_eps); });
        phi[i] = -largest<T>(best);
        if (phi[i] == inf) lost += a[i], a[i] = 0, phi[i] = -inf;  // mass, and nowhere to send it
      }
      if (stored) make_row(i, K + row_of_K(i));
    }
    tallies[group].stranded = lost;
  });
  for (int64_t group = 0; Balanced && group < groups; ++group) stranded += tallies[group].stranded;
}

// Makes K with every column's largest entry 1, from phi and u alone, and takes the column step.
template <class T, bool Balanced>
inline void Sinkhorn<T, Balanced>::renew_columns() {
  absorb(u, log_u, phi, rows);
  by_rows = false;
  each_group([&](int64_t group, T*) {
    T* const most = column + group * cols;
    std::fill(most, most + cols, -inf);
    for (int64_t i = first_row(group), end = first_row(group + 1); i < end; ++i)
      if (a[i] > 0)
        each_cost(i, [&](int64_t j, vec<T> c) {
          store(most + j, max<T>(load(most + j), phi[i] - c * inverse_eps));
        });
  });
  for (int64_t j = 0; j < p.m; ++j) {
    if (!(b[j] > 0)) continue;
    T most = -inf;
    for (int64_t group = 0; group < groups; ++group) most = std::max(most, column[group * cols + j]);
    gamma[j] = -most;
    if (gamma[j] < inf) continue;
    if (Balanced) stranded += b[j];
    b[j] = 0, gamma[j] = -inf;
  }
  each_group([&](int64_t group, T* made) {
    T* const total = column + group * cols;
    std::fill(total, total + cols, T(0));
    for (int64_t i = first_row(group), end = first_row(group + 1); i < end; ++i) {
      if (!(a[i] > 0)) continue;
      T* const row = stored ? K + row_of_K(i) : made;
      make_row(i, row);
      for (int64_t j = 0; j < cols; j += width)
        store(total + j, load(total + j) + load(row + j * width) * a[i]);
    }
  });
  add_groups();
  scale_columns();
}

// Row sums of the present plan, their error and with a penalty the mass that the rows ask for; the next u,
// and the column sums that go with it. False when the row sums are not to be trusted.
template <class T, bool Balanced>
inline bool Sinkhorn<T, Balanced>::sweep() {
  each_group([&](int64_t group, T* made) { sweep_group(group, made); });
  add_groups();
  row_error = row_wanted = 0;
  bool trusted = true;
  for (int64_t group = 0; group < groups; ++group) {
    const Tally& found = tallies[group];
    row_error += found.off;
    if constexpr (!Balanced) row_wanted += found.wanted;
    trusted &= found.trusted;
  }
  return trusted;
}

template <class T, bool Balanced>
inline void Sinkhorn<T, Balanced>::sweep_group(int64_t group, T* made) {
  T* const total = column + group * cols;
  std::fill(total, total + cols, T(0));
  vec<T> wrong = {}, asked = {}, trusted = broadcast<T>(1);
  for (int64_t i = first_row(group), end = first_row(group + 1); i < end; i += width) {
    for (int64_t k = 0; !stored && k < width; ++k) make_row(i + k, made + k * width);
    const T* block = stored ? K + i * cols : made;
    vec<T> dot[width] = {};
    for (int64_t j = 0; j < cols; j += width) {
      vec<T> r = load(right + j);
#pragma GCC unroll 16
      for (int64_t k = 0; k < width; ++k) dot[k] += load(block + (j + k) * width) * r;
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
    vec<T> each[width];
#pragma GCC unroll 16
    for (int64_t k = 0; k < width; ++k) each[k] = broadcast<T>(scaled[k]);
    for (int64_t j = 0; j < cols; j += width) {
      vec<T> c = load(total + j);
#pragma GCC unroll 16
      for (int64_t k = 0; k < width; ++k) c += load(block + (j + k) * width) * each[k];
      store(total + j, c);
    }
  }
  Tally& found = tallies[group];
  found.off = sum<T>(wrong), found.wanted = sum<T>(asked), found.trusted = !any<T>(trusted == T(0));
}

template <class T, bool Balanced>
inline void Sinkhorn<T, Balanced>::add_groups() {
  for (int64_t group = 1; group < groups; ++group) {
    const T* const more = column + group * cols;
    for (int64_t j = 0; j < cols; j += width) store(column + j, load(column + j) + load(more + j));
  }
}

// v from the column sums, and with a penalty the mass that the columns ask for; false when the sums are not
// to be trusted.
template <class T, bool Balanced>
inline bool Sinkhorn<T, Balanced>::scale_columns() {
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

}  // namespace geokernels::GEOKERNELS_LEVEL
