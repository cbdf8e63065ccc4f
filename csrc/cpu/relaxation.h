// Over-relaxation: by how much the half-steps of a slow iteration are lengthened.
//
// Near its solution Sinkhorn's iteration is a linear one between two blocks, which leaves rate = e'/e of the
// error in each pair of half-steps. Half-steps that go omega times as far, omega = 2 / (1 + sqrt(1 - rate)),
// leave omega - 1 (successive over-relaxation; for Sinkhorn: A. Thibault et al., 2017): 0.6 where 0.94 were
// left. The rate is read off the errors once it has settled; with omega in force and leaving mu it is
// (mu + omega - 1)^2 / (omega^2 mu).

#pragma once

#include <cmath>

namespace geokernels {

class Relaxation {
 public:
  double omega() const { return factor; }

  // Takes the error after each pair of half-steps, and may change omega for the next.
  void see(double error) {
    const double left = error / before;
    const bool settled = ++seen > (factor > 1 ? kAfterChange : kAtFirst) &&
                         std::fabs(left - left_before) < kSettled * (1 - left);
    before = error, left_before = left;
    if (given_up) return;
    if (factor > 1 && seen % kPatience == 0) {
      if (error > kLess * last) return stop();  // what is left are roundings, which long steps magnify
      last = error;
    }
    if (factor > 1 && error > kWorse * at_change) {  // not near enough for it to converge
      stop();
    } else if (settled && error < kNear && left > factor - 1) {
      const double rate = std::pow(left + factor - 1, 2) / (factor * factor * left);
      const double better = 2 / (1 + std::sqrt(std::fmax(1 - rate, kLeastGap)));
      if (better > factor + kWorthIt) factor = better, at_change = error, last = kWorse * error, seen = 0;
    }
  }

  // Plain half-steps from now on.
  void stop() { factor = 1, given_up = true; }

 private:
  // The first pairs with a new omega make the error up to five times as large. Further from the solution than
  // kNear, rates are read that do not last.
  static constexpr int kAtFirst = 2, kAfterChange = 6;  // pairs until the error's fall is steady again
  static constexpr double kSettled = 0.3, kNear = 0.1, kWorse = 20, kWorthIt = 0.01, kLeastGap = 1e-4;
  static constexpr int kPatience = 30;  // pairs in which an error must fall, at least by kLess
  static constexpr double kLess = 0.95;

  double factor = 1, before = 0, left_before = 0, at_change = 0, last = 0;
  int seen = 0;
  bool given_up = false;
};

}  // namespace geokernels
