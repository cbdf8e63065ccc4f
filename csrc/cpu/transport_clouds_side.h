// One side of a problem of large point clouds: its packed points, its weights, its potentials, and what is
// summed over them. Potentials and reach are in units of eps.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/transport_value.h"
#include "cpu/transport_clouds_packed.h"

namespace geokernels {

template <class T>
struct Side {
  PackedCloud<T> cloud;
  std::vector<T> weight;                // 0 beyond the points
  std::vector<T> potential, raw, next;  // next: the raw potentials that a sweep found
  double mass = 0;
  bool valid = true;

  Side(const T* points, const T* given, int64_t n, int64_t features, PairCost cost)
      : cloud(points, n, features, cost), weight(cloud.whole), potential(n), raw(n), next(n) {
    for (int64_t i = 0; i < n; ++i) {
      weight[i] = given ? given[i] : T(1) / T(n);
      valid &= weight[i] >= 0 && weight[i] < kInfinity<T>;
      mass += weight[i];
    }
    valid &= mass > 0;
  }

  void set_bias(const std::vector<T>& to, T temper) {
    for (int64_t i = 0; i < cloud.count; ++i) cloud.bias[i] = temper * cloud.own[i] + to[i];
  }

  // Where a half-step of so many times its length leads.
  T moved(int64_t i, double lambda, double omega) const {
    const double to = lambda * next[i];
    return T(omega == 1 ? to : potential[i] + omega * (to - potential[i]));
  }

  void adopt(double lambda, double omega = 1) {
    for (int64_t i = 0; i < cloud.count; ++i) potential[i] = moved(i, lambda, omega);
    raw = next;
  }

  // A point without mass has the potential that the other side gives it.
  void settle_idle(double lambda) {
    for (int64_t i = 0; i < cloud.count; ++i)
      if (!(weight[i] > 0)) potential[i] = T(lambda * next[i]);
  }

  // The potentials' unit becomes smaller.
  void scale(double factor) {
    for (int64_t i = 0; i < cloud.count; ++i)
      raw[i] = T(factor * raw[i]), potential[i] = T(factor * potential[i]);
  }

  // Potentials take a constant before they are answered to.
  void lift(double by) {
    for (int64_t i = 0; i < cloud.count; ++i) raw[i] = T(raw[i] + by), potential[i] = T(potential[i] + by);
  }

  // L1 distance of this side's marginal from what it should be, once a sweep found what is next.
  double off(double reach) const {
    double total = 0;
    for (int64_t i = 0; i < cloud.count; ++i) {
      double wanted = reach < kInfinity<double> ? std::exp(-double(potential[i]) / reach) : 1;
      if (weight[i] > 0)
        total += weight[i] * std::fabs(std::exp(double(potential[i]) - double(next[i])) - wanted);
    }
    return total;
  }

  // Mass of the plan, by the sums that led to what is next.
  double plan_mass() const {
    double total = 0;
    for (int64_t i = 0; i < cloud.count; ++i)
      if (weight[i] > 0) total += weight[i] * std::exp(double(potential[i]) - double(next[i]));
    return total;
  }

  SideSums sums(double reach) const {
    SideSums total;
    total.mass = mass;
    for (int64_t i = 0; i < cloud.count; ++i)
      if (weight[i] > 0) total.add(weight[i], potential[i], reach);
    return total;
  }

  // The mass that the potentials ask for, under a penalty.
  double wanted(double reach) const {
    double total = 0;
    for (int64_t i = 0; i < cloud.count; ++i)
      if (weight[i] > 0) total += weight[i] * std::exp(-double(potential[i]) / reach);
    return total;
  }

  // The largest size of a potential that counts.
  double largest() const {
    double most = 0;
    for (int64_t i = 0; i < cloud.count; ++i)
      if (weight[i] > 0) most = std::max(most, std::fabs(double(potential[i])));
    return most;
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

}  // namespace geokernels
