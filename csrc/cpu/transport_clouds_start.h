// A start for the potentials of two clouds: those of the normal distributions that have the clouds' means and
// second moments.
//
//   <x, y> + phi(x) + psi(y) = log density of the plan,   psi(y) = -<m_x, y'> - y'^T B y' / 2,   y' = y - m_y
//   A = (I + S_y B)^-1 S_y,   B = (I + S_x A)^-1 S_x,     phi likewise with A, m_y, and a constant
//
// Of a normal cloud these are the potentials, but for what its sample does to higher moments. Of any cloud
// they are what the logarithm of the half-steps' sums is to second order in 1/eps: the larger eps, the
// nearer. (Gaussian starts for Sinkhorn's iteration: J. Thornton and M. Cuturi, 2023.)
//
// A and B are found by half-steps from their values for the diagonals alone, which are closed: with s and t
// the variances of a feature, A = s w, B = t w, w = 2 / (1 + sqrt(1 + 4 s t)). Where whole moments would cost
// much beside a sweep, it stays at that.
//
// Panels are shared out to the threads in groups, whose number depends on the sizes alone, and the groups'
// sums are added up in their order, so results do not depend on the threads.
//
// After cpu/each_level.h with cpu/transport_clouds_sweep_kernel.h.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/transport_clouds_side.h"
#include "cpu/workers.h"

namespace geokernels {

template <class T>
class NormalStart {
 public:
  NormalStart(const Side<T>& a, const Side<T>& b, int64_t features, Watch& watch)
      : features(features), diagonal(!whole_moments_pay(a.cloud.count, b.cloud.count)), watch(watch) {
    const Moments of_a = moments(a), of_b = moments(b);
    const double constant = couple(of_a.second, of_b.second);
    double between = 0;
    for (int64_t d = 0; d < features; ++d) between += double(of_a.mean[d]) * of_b.mean[d];
    f = potentials(a, of_a.mean, of_b.mean, A, constant - between - std::log(b.mass));
    g = potentials(b, of_b.mean, of_a.mean, B, 0);
  }

  std::vector<T> f, g;

 private:
  struct Moments {
    std::vector<T> mean;
    std::vector<double> second;  // about the mean
  };

  // Multiplications of everything here beside those of a sweep, an exponential being about thirty; 120 d^3
  // are some half-steps of the second moments.
  bool whole_moments_pay(double n, double m) const {
    const double d = features;
    return d <= kMostFeatures && 4 * d * d * (n + m) + 120 * d * d * d < kShare * n * m * (2 * d + 60);
  }

  // Calls work(panel, Workspace<T>, group) for every panel.
  template <class Work>
  void each_panel(const Side<T>& side, const Work& work) const {
    const int64_t panels = side.cloud.whole / GEOKERNELS_AT_LEVEL(cloud_panel<T>);
    const int64_t groups = std::min(panels, kGroups);
    share_out<T>(watch, groups, GEOKERNELS_AT_LEVEL(moments_memory<T>, features),
                 [&](int64_t group, Workspace<T> own) {
                   for (int64_t p = panels * group / groups; p < panels * (group + 1) / groups; ++p)
                     work(p, own.again(), group);
                 });
  }

  Moments moments(const Side<T>& side) const {
    const int64_t panel = GEOKERNELS_AT_LEVEL(cloud_panel<T>),
                  size = diagonal ? features : features * features;
    std::vector<T> means(kGroups * features, T(0)), seconds(kGroups * size, T(0));
    each_panel(side, [&](int64_t p, Workspace<T> own, int64_t group) {
      GEOKERNELS_AT_LEVEL(add_moments<T>, side.cloud.panels.data() + p * panel * features,
                          side.weight.data() + p * panel, features, diagonal, means.data() + group * features,
                          seconds.data() + group * size, own);
    });
    Moments found{std::vector<T>(features), std::vector<double>(size, 0)};
    std::vector<double> mean(features, 0);
    for (int64_t group = 0; group < kGroups; ++group) {
      for (int64_t d = 0; d < features; ++d) mean[d] += means[group * features + d] / side.mass;
      for (int64_t k = 0; k < size; ++k) found.second[k] += seconds[group * size + k] / side.mass;
    }
    for (int64_t d = 0; d < features; ++d) {
      found.mean[d] = T(mean[d]);
      if (diagonal) found.second[d] = std::max(found.second[d] - mean[d] * mean[d], 0.0);
      for (int64_t e = 0; e < features && !diagonal; ++e) found.second[d * features + e] -= mean[d] * mean[e];
    }
    return found;
  }

  // Sets A and B; returns what the logarithm of a row's sum has beside its quadratic form, with the sign of a
  // potential.
  double couple(const std::vector<double>& of_a, const std::vector<double>& of_b) {
    const int64_t step = diagonal ? 1 : features + 1;
    A.assign(of_a.size(), 0), B.assign(of_b.size(), 0);
    double log_det = 0;
    for (int64_t d = 0; d < features; ++d) {
      const double t = of_a[d * step], s = of_b[d * step], w = 2 / (1 + std::sqrt(1 + 4 * s * t));
      A[d * step] = s * w, B[d * step] = t * w;
      log_det += std::log1p(s * B[d * step]);
    }
    if (diagonal) return log_det / 2;
    std::vector<double> before, room(A.size());
    for (int pair = 0; pair < kMostPairs; ++pair) {
      before = B;
      log_det = half_step(of_b, B, A, room);
      half_step(of_a, A, B, room);
      if (!(farthest(before, B) > kClose * farthest({}, B))) break;
    }
    log_det = half_step(of_b, B, A, room);
    return log_det / 2;
  }

  double half_step(const std::vector<double>& S, const std::vector<double>& from, std::vector<double>& to,
                   std::vector<double>& room) const {
    return GEOKERNELS_AT_LEVEL(answering_form<double>, S.data(), from.data(), features, to.data(),
                               room.data());
  }

  // The largest difference, of nothing from 0.
  static double farthest(const std::vector<double>& from, const std::vector<double>& to) {
    double most = 0;
    for (size_t k = 0; k < to.size(); ++k)
      most = std::max(most, std::fabs(to[k] - (from.empty() ? 0 : from[k])));
    return most;
  }

  std::vector<T> potentials(const Side<T>& side, const std::vector<T>& centre, const std::vector<T>& linear,
                            const std::vector<double>& form, double constant) const {
    const int64_t panel = GEOKERNELS_AT_LEVEL(cloud_panel<T>);
    const std::vector<T> rounded(form.begin(), form.end());
    std::vector<T> found(side.cloud.whole);
    each_panel(side, [&](int64_t p, Workspace<T> own, int64_t) {
      GEOKERNELS_AT_LEVEL(quadratic_form<T>, side.cloud.panels.data() + p * panel * features, features,
                          diagonal, centre.data(), linear.data(), rounded.data(), found.data() + p * panel,
                          own);
    });
    found.resize(side.cloud.count);
    for (int64_t i = 0; i < side.cloud.count; ++i) found[i] = T(found[i] + constant - side.cloud.own[i]);
    return found;
  }

  static constexpr int64_t kGroups = 16, kMostFeatures = 128;
  static constexpr double kShare = 0.1;  // of a sweep
  static constexpr int kMostPairs = 12;
  static constexpr double kClose = 1e-3;  // it is a start

  const int64_t features;
  const bool diagonal;
  Watch& watch;
  std::vector<double> A, B;  // [features, features] or [features]
};

}  // namespace geokernels
