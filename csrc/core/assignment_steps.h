// What the searches for an assignment on the CPU and the GPU decide alike, so that both find the same one
// among equally cheap ones.

#pragma once

#include <cstdint>
#include <limits>

#include "core/anywhere.h"

namespace geokernels {

// Searches pay sooner than further bids; and bids that are lost in rounding would go on for ever.
constexpr int kBiddingTurns = 2;
constexpr int64_t kBidsOfRow = 1;  // a row and turn

// The two cheapest columns for a row at the present prices, and their costs; of equal ones the first in
// order.
template <class Index>
struct Offers {
  static constexpr double inf = std::numeric_limits<double>::infinity();

  Index first = -1, second = -1;
  double least = inf, next = inf;

  // Of columns in ascending order.
  GEOKERNELS_ANYWHERE void take(Index j, double cost) {
    if (!(cost < next)) return;
    if (cost < least)
      second = first, next = least, first = j, least = cost;
    else
      second = j, next = cost;
  }

  // Those of other columns, in any order.
  GEOKERNELS_ANYWHERE void merge(const Offers& other) {
    const bool theirs = comes_before(other.least, other.first, least, first);
    // the other side's cheapest against the own second
    const Index loser = theirs ? first : other.first, rest = theirs ? other.second : second;
    const double lost = theirs ? least : other.least, left = theirs ? other.next : next;
    if (theirs) first = other.first, least = other.least;
    const bool loses = comes_before(lost, loser, left, rest);
    second = loses ? loser : rest, next = loses ? lost : left;
  }

 private:
  // No column, -1, has infinite cost.
  GEOKERNELS_ANYWHERE static bool comes_before(double cost, Index j, double than, Index of) {
    return cost < than || (cost == than && cost < inf && j < of);
  }
};

// The nearest column to a row, by the length of the path to it; of equal ones a free one, then the first.
template <class Index>
struct Nearest {
  static constexpr double inf = std::numeric_limits<double>::infinity();

  double distance = inf;
  bool owned = true;
  Index column = -1;

  // Of columns in ascending order; is_owned() is asked of few.
  template <class Owned>
  GEOKERNELS_ANYWHERE void take(Index j, double length, const Owned& is_owned) {
    if (!(length <= distance && length < inf)) return;
    const bool other = is_owned();
    if (length < distance || (owned && !other)) distance = length, owned = other, column = j;
  }

  GEOKERNELS_ANYWHERE void merge(const Nearest& other) {
    if (!(other.distance <= distance && other.distance < inf)) return;
    const bool tie = other.distance == distance;
    if (!tie || (owned && !other.owned) || (owned == other.owned && other.column < column)) *this = other;
  }
};

}  // namespace geokernels
