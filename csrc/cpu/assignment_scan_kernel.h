// What a search for an assignment asks of a row of costs, whole: its two cheapest offers, and the lengths of
// paths by way of it. No include guard: included once for every SIMD level.
//
// An offer is cost - price of a column, in float64. NaN is cheaper than nothing: the order of operands sees
// to it. Every operation is rounded on its own, and what is found depends on values and the order of columns
// alone, so that all SIMD levels decide alike, to the bit. Rows have at least as many columns as a vector has
// lanes.

#include "cpu/lanes_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

using Numbers = Vector<double>::mask;  // whole ones, as wide
constexpr double kForbidden = std::numeric_limits<double>::infinity();

inline Numbers load_numbers(const int64_t* p) {
  Numbers v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

inline void store_numbers(int64_t* p, Numbers v) { __builtin_memcpy(p, &v, sizeof(v)); }

inline Wide lanes_in_order() {
  Wide lane;
  for (int i = 0; i < kWide; ++i) lane[i] = i;
  return lane;
}

template <class T>
inline Wide costs_of(const T* c) {
  typedef T narrow __attribute__((vector_size(kWide * sizeof(T))));
  narrow v;
  __builtin_memcpy(&v, c, sizeof(v));
  return __builtin_convertvector(v, Wide);
}

// Calls take(j, offers) for the columns from j on, all of them in ascending order; one that comes again to
// fill a vector is forbidden then.
template <class T, class Take>
inline void each_offer(const T* cost, const double* price, int columns, const Take& take) {
  int j = 0;
  for (; j + kWide <= columns; j += kWide) take(j, costs_of(cost + j) - load(price + j));
  if (j == columns) return;
  const int last = columns - kWide;
  const Wide offers = costs_of(cost + last) - load(price + last);
  take(last, lanes_in_order() < broadcast(double(j - last)) ? broadcast(kForbidden) : offers);
}

// The smallest of all lanes and the one after it, in each.
template <int Half = kWide / 2>
inline void smallest_two(Wide& least, Wide& next) {
  if constexpr (Half > 0) {
    const Wide others = across<Half>(least);
    next = smaller(smaller(next, across<Half>(next)), larger(least, others));
    least = smaller(least, others);
    smallest_two<Half / 2>(least, next);
  }
}

// From number k on, `there` is in lane kWide - 1 - k, and `elsewhere` in the others.
struct LaneTable {
  double numbers[2 * kWide - 1];

  constexpr LaneTable(double there, double elsewhere) : numbers() {
    for (double& number : numbers) number = elsewhere;
    numbers[kWide - 1] = there;
  }
  Wide at(int column) const { return load(numbers + kWide - 1 - column % kWide); }
};

// Whole vectors are written: one that is read soon after need not wait for a part of it.
constexpr LaneTable kOnlyOne(0, kForbidden), kNaNInOne(std::numeric_limits<double>::quiet_NaN(), 0);

// p[j] = value, which is no more than what was there.
inline void lower(double* p, int j, double value) {
  double* const vector = p + j / kWide * kWide;
  store(vector, smaller(value + kOnlyOne.at(j), load(vector)));
}

// A column whose distance is NaN is settled: no length is less, or equal.
inline void settle_distance(double* distance, int j) {
  double* const vector = distance + j / kWide * kWide;
  store(vector, load(vector) + kNaNInOne.at(j));
}

// The first column but `but` that offers exactly this.
template <class T>
inline int first_offering(const T* cost, const double* price, int columns, double offer, int but) {
  for (int j = 0; j < columns; ++j)
    if (double(cost[j]) - price[j] == offer && j != but) return j;
  return -1;
}

// The two cheapest columns at the present prices; the second one's number only where both cost the same.
template <class T>
Offers<int> cheapest_two(const T* cost, const double* price, int columns) {
  Wide least = broadcast(kForbidden), next = least, first = {};
  const Wide lane = lanes_in_order();
  each_offer(cost, price, columns, [&](int j, Wide offers) {
    next = smaller(larger(least, offers), next);
    first = offers < least ? lane + double(j) : first;
    least = smaller(offers, least);
  });
  double firsts[kWide];
  store(firsts, first);
  const Wide by_lane = least;
  smallest_two(least, next);
  Offers<int> found;
  found.least = least[0], found.next = next[0];
  if (!(found.least < kForbidden)) return found;
  found.first = columns;
  for (uint64_t equal = equal_lanes(by_lane, least); equal; equal &= equal - 1) {
    found.first = std::min(found.first, int(firsts[__builtin_ctzll(equal)]));
  }
  if (found.next == found.least) found.second = first_offering(cost, price, columns, found.next, found.first);
  return found;
}

constexpr int kBlock = 64;  // columns, which have a bit each in a machine word

// Of columns as far from the row that is searched as `least`: a free one, or else the first.
struct NearestColumn {
  const int* owner;
  int column = -1;

  // Looks at a block of distances; true where it has a free one: in blocks in order it is the first.
  bool look(const double* distance, int block, Wide least) {
    const double* const d = distance + block * kBlock;
    uint64_t equal = 0;
#pragma GCC unroll 32
    for (int j = 0; j < kBlock; j += kWide) equal |= equal_lanes(load(d + j), least) << j;
    for (; equal; equal &= equal - 1) {
      const int j = block * kBlock + __builtin_ctzll(equal);
      const bool free = owner[j] < 0;
      if (free || column < 0) column = j;
      if (free) return true;
    }
    return false;
  }
};

}  // namespace geokernels::GEOKERNELS_LEVEL
