// Some points of a cloud, one from each of equally many in a row: which of these is a hash of its number, so
// that an order of the points which repeats itself does not repeat in the sample.

#pragma once

#include <algorithm>
#include <vector>

#include "cpu/transport_clouds_side.h"

namespace geokernels {

template <class T>
struct Sample {
  int64_t count;
  std::vector<T> points, weight, potential;  // weights sum to 1, so that both clouds have the same mass

  Sample(const T* of, const Side<T>& side, int64_t features, const std::vector<T>& potentials)
      : count(std::clamp(side.cloud.count / kOneIn, std::min(kLeast, side.cloud.count), kMost)) {
    double mass = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t first = side.cloud.count * k / count, next = side.cloud.count * (k + 1) / count;
      const int64_t i = first + int64_t(hash(uint64_t(k)) % uint64_t(next - first));
      points.insert(points.end(), of + i * features, of + (i + 1) * features);
      weight.push_back(side.weight[i]), potential.push_back(potentials[i]);
      mass += side.weight[i];
    }
    for (T& w : weight) w = T(w / mass);
  }

 private:
  // The finaliser of splitmix64 (G. Steele and others, 2014).
  static uint64_t hash(uint64_t k) {
    k = (k + 1) * 0x9e3779b97f4a7c15;
    k = (k ^ (k >> 30)) * 0xbf58476d1ce4e5b9;
    k = (k ^ (k >> 27)) * 0x94d049bb133111eb;
    return k ^ (k >> 31);
  }

  static constexpr int64_t kOneIn = 8, kLeast = 64, kMost = 1024;
};

}  // namespace geokernels
