// The cheapest one-to-one assignment of rows to columns, exactly, by shortest augmenting paths, after a start
// that settles most rows (R. Jonker and A. Volgenant, 1987).
//
//   minimise sum_i C[i, chosen[i]],   chosen one-to-one,   rows <= columns
//
// C       [rows, columns]  row-major; +inf forbids a pair; no NaN, no -inf
// chosen  [rows]           -1 throughout when every assignment uses a forbidden pair
//
// Throughout, reduced costs C - row_price - column_price are non-negative, and zero where a column is owned;
// columns that are free in the end have price 0. In a square problem every column first takes its cheapest
// row, if that is free. Then rows without a column bid: a row takes its cheapest column from the row that
// owns it, and lowers its price by the difference to the second cheapest. For the rows still left, Dijkstra's
// search over reduced costs finds the cheapest way to a column, moving others where that pays.
// O(rows^2 columns), float64, serial.
// Among equally cheap assignments the one found depends on the order of rows and columns alone.

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/assignment_steps.h"
#include "core/watch.h"

namespace geokernels {

class Assignment {
 public:
  Assignment(const double* cost, int64_t rows, int64_t columns, Watch& watch)
      : cost(cost),
        pace(watch),
        rows(rows),
        columns(columns),
        row_price(rows),
        column_price(columns),
        distance(columns),
        owner(columns, -1),
        before(columns),
        settled(columns) {}

  bool solve(int64_t* chosen) {
    for (int64_t i = 0; i < rows; ++i) waiting.push_back(i);
    if (rows == columns) start_with_columns();
    for (int turn = 0; turn < kBiddingTurns; ++turn) bid();
    for (int64_t i : waiting)
      if (!enter(i)) return false;
    for (int64_t j = 0; j < columns; ++j)
      if (owner[j] >= 0) chosen[owner[j]] = j;
    return true;
  }

 private:
  static constexpr double inf = std::numeric_limits<double>::infinity();

  // Every column takes its cheapest row if that is free. All columns are owned in the end: any price will do.
  void start_with_columns() {
    std::vector<double> least(cost, cost + columns);
    std::vector<int64_t> cheapest(columns, 0);
    for (int64_t i = 1; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const double c = cost[i * columns + j];
        cheapest[j] = c < least[j] ? i : cheapest[j];
        least[j] = c < least[j] ? c : least[j];
      }
    std::vector<char> taken(rows, 0);
    for (int64_t j = 0; j < columns; ++j) {
      if (!(least[j] < inf)) continue;
      column_price[j] = least[j];
      if (!taken[cheapest[j]]) owner[j] = cheapest[j], taken[cheapest[j]] = 1;
    }
    waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [&](int64_t i) { return taken[i]; }),
                  waiting.end());
  }

  // One turn of bids; a row that lost its column, or has only one to choose, waits.
  void bid() {
    std::vector<int64_t> bidders;
    bidders.swap(waiting);
    int64_t bids = kBidsOfRow * rows;
    for (int64_t row : bidders)
      while (row >= 0) {
        const Offers<int64_t> offers = cheapest_two(row);
        const double least = offers.least, next = offers.next;
        if (!(next < inf) || bids-- <= 0 || pace.stop(columns)) {
          waiting.push_back(row);
          break;
        }
        row_price[row] = next;
        column_price[offers.first] -= next - least;
        const int64_t to = next == least && owner[offers.first] >= 0 ? offers.second : offers.first;
        const int64_t loser = owner[to];
        owner[to] = row;
        row = loser;
        if (loser >= 0 && next == least) {  // that bid has gained nothing
          waiting.push_back(loser);
          break;
        }
      }
  }

  // The two cheapest columns for a row at the present prices.
  Offers<int64_t> cheapest_two(int64_t row) const {
    const double* c = cost + row * columns;
    Offers<int64_t> found;
    for (int64_t j = 0; j < columns; ++j) found.take(j, c[j] - column_price[j]);
    return found;
  }

  // Gives `row` a column; false when no path of finite cost leads to a free one.
  bool enter(int64_t row) {
    distance.assign(columns, inf);
    settled.assign(columns, 0);
    path.clear();
    int64_t i = row, last = -1;
    double reached = 0;
    while (true) {
      int64_t nearest = relax(i, last, reached);
      if (nearest < 0 || pace.stop(columns)) return false;
      reached = distance[nearest];
      settled[nearest] = 1;
      last = nearest;
      if (owner[nearest] < 0) break;
      path.push_back(nearest);
      i = owner[nearest];
    }
    row_price[row] += reached;
    for (int64_t j : path) {
      row_price[owner[j]] += reached - distance[j];
      column_price[j] -= reached - distance[j];
    }
    for (int64_t j = last; j >= 0;) {  // the row that owned the column before j on the path moves to j
      int64_t from = before[j];
      owner[j] = from < 0 ? row : owner[from];
      j = from;
    }
    return true;
  }

  // Shortens distances by way of row i, reached through column `via`; the nearest column not settled, or -1.
  int64_t relax(int64_t i, int64_t via, double reached) {
    const double* c = cost + i * columns;
    Nearest<int64_t> nearest;
    for (int64_t j = 0; j < columns; ++j) {
      if (settled[j]) continue;
      double d = reached + (c[j] - row_price[i] - column_price[j]);
      if (d < distance[j]) distance[j] = d, before[j] = via;
      nearest.take(j, distance[j], [&] { return owner[j] >= 0; });
    }
    return nearest.column;
  }

  const double* cost;
  Pace pace;
  const int64_t rows, columns;
  std::vector<double> row_price, column_price, distance;
  std::vector<int64_t> owner, before, path;  // owner of a column; the column before it on the path
  std::vector<int64_t> waiting;              // rows without a column
  std::vector<char> settled;
};

// False where there is no assignment, or where the call is to end early.
inline bool assign(const double* cost, int64_t rows, int64_t columns, int64_t* chosen, Watch& watch) {
  if (Assignment(cost, rows, columns, watch).solve(chosen)) return true;
  std::fill(chosen, chosen + rows, -1);
  return false;
}

}  // namespace geokernels
