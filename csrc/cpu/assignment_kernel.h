// The cheapest one-to-one assignment of rows to columns, exactly, by shortest augmenting paths, after a start
// that settles some rows (R. Jonker and A. Volgenant, 1987).
//
//   minimise sum_i C[i, chosen[i]],   chosen one-to-one,   rows <= columns
//
// C       [rows, columns]  row-major; +inf forbids a pair, and so does NaN; no -inf
// chosen  [rows]           -1 throughout when every assignment uses a forbidden pair
//
// Throughout, reduced costs C - row_price - column_price are non-negative, and zero where a column is owned;
// columns that are free in the end have price 0. In a square problem every column first takes its cheapest
// row, if that is free. Then rows without a column bid: a row takes its cheapest column from the row that
// owns it, and lowers its price by the difference to the second cheapest. For the rows still left, Dijkstra's
// search over reduced costs finds the cheapest way to a column, moving others where that pays.
// O(rows^2 columns), float64, serial.
// Among equally cheap assignments the one found depends on the order of rows and columns alone, on every SIMD
// level, and is that of cuda/transport_assignment_kernel.h.
//
// Rows of few columns are looked at whole; for others see cpu/assignment_near_kernel.h.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

// What is known of a problem.
template <class T>
struct AssignmentState {
  const T* cost;
  int rows, columns;
  double *row_price, *column_price;
  double* distance;  // to a column, NaN where the search has settled it
  int64_t* before;   // the number of the row, in the order of the search, from which a column is reached
  int* owner;        // of a column

  const T* row(int i) const { return cost + int64_t(i) * columns; }
};

}  // namespace geokernels::GEOKERNELS_LEVEL

#include "cpu/assignment_scan_kernel.h"
// on its scans
#include "cpu/assignment_near_kernel.h"
#include "cpu/assignment_whole_kernel.h"

namespace geokernels::GEOKERNELS_LEVEL {

template <class T, class Rows>
class Assignment {
 public:
  template <class Number>
  Assignment(Workspace<Number>& from, const T* cost, int rows, int columns)
      : s{cost,
          rows,
          columns,
          from.template take_as<double>(rows),
          from.template take_as<double>(round_up(columns, kBlock)),
          from.template take_as<double>(round_up(columns, kBlock)),
          from.template take_as<int64_t>(round_up(columns, kBlock)),
          from.template take_as<int>(round_up(columns, kBlock))},
        of_rows(from, s),
        reached(from.template take_as<double>(rows + 1)),
        path(from.template take_as<int>(rows + 1)),
        by(from.template take_as<int>(rows + 1)),
        waiting(from.template take_as<int>(rows)) {}

  bool solve(bool square, int64_t* chosen, Watch& watch) {
    Pace pace(watch);
    std::fill_n(s.row_price, s.rows, 0);
    std::fill_n(s.column_price, round_up(s.columns, kBlock), 0);
    std::fill_n(s.distance, round_up(s.columns, kBlock), kForbidden);
    std::fill_n(s.owner, s.columns, -1);
    for (int i = 0; i < s.rows; ++i) waiting[i] = i;
    left = s.rows;
    if (square) start_with_columns();
    for (int turn = 0; turn < kBiddingTurns; ++turn) bid(pace);
    for (int k = 0; k < left; ++k)
      if (!enter(waiting[k], pace)) return false;
    for (int j = 0; j < s.columns; ++j)
      if (s.owner[j] >= 0) chosen[s.owner[j]] = j;
    return true;
  }

 private:
  // Every column takes its cheapest row if that is free. All columns are owned in the end: any price will do.
  void start_with_columns() {
    double* const least = s.column_price;
    of_rows.cheapest_rows(least, s.before);
    int* const taken = path;
    std::fill_n(taken, s.rows, 0);
    for (int j = 0; j < s.columns; ++j) {
      if (!(least[j] < kForbidden)) {
        least[j] = 0;
        continue;
      }
      const int row = int(s.before[j]);
      if (!taken[row]) s.owner[j] = row, taken[row] = 1;
    }
    left = int(std::remove_if(waiting, waiting + s.rows, [&](int i) { return taken[i]; }) - waiting);
  }

  // One turn of bids; a row that lost its column, or has only one to choose, waits.
  void bid(Pace& pace) {
    int64_t bids = kBidsOfRow * s.rows;
    int kept = 0;
    for (int k = 0; k < left; ++k)
      for (int row = waiting[k]; row >= 0;) {
        Offers<int> offers;
        if (bids > 0 && !pace.stop(of_rows.work())) offers = of_rows.cheapest_two(row);
        if (!(offers.next < kForbidden) || bids-- <= 0) {
          waiting[kept++] = row;
          break;
        }
        const bool gains = offers.next > offers.least;
        s.row_price[row] = offers.next;
        lower(s.column_price, offers.first, s.column_price[offers.first] - (offers.next - offers.least));
        const int to = gains || s.owner[offers.first] < 0 ? offers.first : offers.second;
        const int loser = s.owner[to];
        s.owner[to] = row;
        row = loser;
        if (loser >= 0 && !gains) {
          waiting[kept++] = loser;
          break;
        }
      }
    left = kept;
  }

  // Gives `row` a column; false when no path of finite cost leads to a free one.
  bool enter(int row, Pace& pace) {
    int length = 0, last;
    for (int i = row;; i = s.owner[last], ++length) {
      last = of_rows.lengthen(length, i, length == 0 ? 0 : reached[length - 1]);
      if (last < 0 || pace.stop(of_rows.work())) return false;
      reached[length] = s.distance[last], path[length] = last, by[length] = int(s.before[last]);
      if (s.owner[last] < 0) break;
      of_rows.settle(last);
    }
    const double whole = reached[length];
    s.row_price[row] += whole;
    for (int k = 0; k < length; ++k) {
      const int j = path[k];
      s.row_price[s.owner[j]] += whole - reached[k];
      lower(s.column_price, j, s.column_price[j] - (whole - reached[k]));
    }
    for (int k = length; k >= 0;) {  // the row by which a column was reached moves there
      const int from = by[k] - 1, j = path[k];
      s.owner[j] = from < 0 ? row : s.owner[path[from]];
      k = from;
    }
    return true;
  }

  const AssignmentState<T> s;
  Rows of_rows;
  double* reached;  // of the columns that a search has settled, in order
  int *path, *by;   // those columns, and the number of the row by which each was reached
  int* waiting;     // rows without a column
  int left;         // how many wait
};

constexpr int kMostWhole = 768;  // columns

template <class T>
struct AssignmentRoom {
  double* wide = nullptr;  // [rows, columns in whole vectors]   costs, where rows are short
  Workspace<T> others;

  AssignmentRoom(Workspace<T>& from, int rows, int columns) {
    if (columns > kMostWhole) {
      others = from.part(counted<Assignment<T, NearRows<T>>>(static_cast<const T*>(nullptr), rows, columns));
      return;
    }
    const int whole = whole_columns(columns);
    wide = from.template take_as<double>(int64_t(rows) * whole);
    others =
        from.part(counted<Assignment<double, WholeRows>>(static_cast<const double*>(nullptr), rows, whole));
  }

  static int whole_columns(int columns) { return int(padded<double>(columns)); }

  template <class Made, class... Arguments>
  static int64_t counted(Arguments... arguments) {
    Workspace<T> memory;
    Made(memory, arguments...);
    return memory.taken();
  }
};

// Copies costs, with whole vectors in a row: what is not there is forbidden.
template <class T>
void widen(const T* cost, int rows, int columns, int whole, double* to) {
  for (int i = 0; i < rows; ++i, cost += columns, to += whole) {
    for (int j = columns / kWide * kWide; j < whole; j += kWide) store(to + j, broadcast(kForbidden));
    int j = 0;
    for (; j + kWide <= columns; j += kWide) store(to + j, costs_of(cost + j));
    if (j < columns && columns >= kWide) store(to + columns - kWide, costs_of(cost + columns - kWide));
    if (columns < kWide) std::copy_n(cost, columns, to);
  }
}

template <class T>
int64_t assignment_workspace(int64_t rows, int64_t columns) {
  Workspace<T> counted;
  AssignmentRoom<T>(counted, int(rows), int(columns));
  return counted.taken();
}

// Whether no cost is NaN or -inf.
template <class T>
bool are_costs(const T* cost, int64_t count) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  using Mask = typename Vector<T>::mask;
  Mask are = Mask{} == Mask{};
  int64_t i = 0;
  for (; i + Vector<T>::width <= count; i += Vector<T>::width) are &= load(cost + i) > lowest;
  bool all = bits<T>(are) == bits<T>(Mask{} == Mask{});
  for (; i < count; ++i) all &= cost[i] > lowest;
  return all;
}

// False where there is no assignment, or where the call is to end early.
template <class T>
bool assign(const T* cost, int64_t rows, int64_t columns, int64_t* chosen, Workspace<T> memory,
            Watch& watch) {
  AssignmentRoom<T> room(memory, int(rows), int(columns));
  bool found;
  if (columns > kMostWhole) {
    found = Assignment<T, NearRows<T>>(room.others, cost, int(rows), int(columns))
                .solve(rows == columns, chosen, watch);
  } else {
    const int whole = room.whole_columns(int(columns));
    widen(cost, int(rows), int(columns), whole, room.wide);
    found = Assignment<double, WholeRows>(room.others, room.wide, int(rows), whole)
                .solve(rows == columns, chosen, watch);
  }
  if (!found) std::fill_n(chosen, rows, -1);
  return found;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
