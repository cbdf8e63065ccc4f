// The cheapest one-to-one assignment of rows to columns, exactly, by shortest augmenting paths.
//
//   minimise sum_i C[i, chosen[i]],   chosen one-to-one,   rows <= columns
//
// C       [rows, columns]  row-major; +inf forbids a pair; no NaN, no -inf
// chosen  [rows]           -1 throughout when every assignment uses a forbidden pair
//
// Rows enter one at a time. Dijkstra's search over reduced costs C - row_price - column_price >= 0 finds
// the cheapest way to give the new row a column, moving earlier rows where that pays; the prices then
// change so that reduced costs stay non-negative. O(rows^2 columns), float64, serial.
// Among equally cheap assignments the one found depends on the order of rows and columns alone.

#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace geokernels {

class Assignment {
 public:
  Assignment(const double* cost, int64_t rows, int64_t columns)
      : cost(cost),
        rows(rows),
        columns(columns),
        row_price(rows),
        column_price(columns),
        distance(columns),
        owner(columns, -1),
        before(columns),
        settled(columns) {}

  bool solve(int64_t* chosen) {
    for (int64_t i = 0; i < rows; ++i)
      if (!enter(i)) return false;
    for (int64_t j = 0; j < columns; ++j)
      if (owner[j] >= 0) chosen[owner[j]] = j;
    return true;
  }

 private:
  static constexpr double inf = std::numeric_limits<double>::infinity();

  // Gives `row` a column; false when no path of finite cost leads to a free one.
  bool enter(int64_t row) {
    distance.assign(columns, inf);
    settled.assign(columns, 0);
    path.clear();
    int64_t i = row, last = -1;
    double reached = 0;
    while (true) {
      int64_t nearest = relax(i, last, reached);
      if (nearest < 0) return false;
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

  // Shortens distances by way of row i, reached through column `via`; the nearest column not settled,
  // a free one among equals, or -1.
  int64_t relax(int64_t i, int64_t via, double reached) {
    const double* c = cost + i * columns;
    int64_t nearest = -1;
    double least = inf;
    for (int64_t j = 0; j < columns; ++j) {
      if (settled[j]) continue;
      double d = reached + (c[j] - row_price[i] - column_price[j]);
      if (d < distance[j]) distance[j] = d, before[j] = via;
      if (distance[j] < least || (distance[j] == least && least < inf && owner[j] < 0 && owner[nearest] >= 0))
        least = distance[j], nearest = j;
    }
    return nearest;
  }

  const double* cost;
  const int64_t rows, columns;
  std::vector<double> row_price, column_price, distance;
  std::vector<int64_t> owner, before, path;  // owner of a column; the column before it on the path
  std::vector<char> settled;
};

inline void assign(const double* cost, int64_t rows, int64_t columns, int64_t* chosen) {
  if (!Assignment(cost, rows, columns).solve(chosen))
    for (int64_t i = 0; i < rows; ++i) chosen[i] = -1;
}

}  // namespace geokernels
