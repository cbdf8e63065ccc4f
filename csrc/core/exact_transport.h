// Exact optimal transport between any two masses, by the network simplex method.
//
//   minimise sum_ij P[i, j] C[i, j],   P >= 0,   rows of P sum to a,   columns to b
//
// C     [N, M]      row-major, float or double; +inf forbids a pair
// a, b  [N], [M]    non-negative, of one total; null for 1 / N and 1 / M
//
// A basis of this linear programme is a spanning tree of rows and columns (exact_transport_tree.h): N + M - 1
// pairs, which may have mass. Prices f and g make the reduced costs C - f - g zero on the tree. A pair with a
// negative one enters: its cycle with the tree takes as much more mass as the others on it allow, and the
// first of those that is empty leaves. Where there is no such pair, plan and prices are optimal.
//
// Cycling: where masses tie, a pair may enter without mass, and such pivots could go round for ever. The tree
// is kept strongly feasible (W. H. Cunningham, 1976: "A network simplex method"): every pair of the tree that
// is empty leads towards the root, and among the pairs that could leave, the last one from the cycle's
// highest node, in the direction of the pair that enters, does. Then a pivot without mass always lowers the
// prices of some nodes against the root's, so no tree comes back. That is exact, as masses are whole numbers
// (exact_transport_masses.h).
//
// Start: rows in turn, each with its cheapest column that is not full, where a column is cheap beside its
// own cheapest row. The masses of this start are those of a problem in which every row weighs a trifle more:
// no two of them tie, which makes the first tree strongly feasible.
//
// Pricing: whole rows are searched, some at a time; the cheapest pair of each that is negative goes on a
// list, from which the most negative one enters, a few times over, as its prices change.
//
// Forbidden pairs: the start may need some of them. A first phase, in which they cost 1 and all others 0,
// empties them, or shows that there is no plan. Pairs with a reduced cost in the first phase have no mass in
// any plan, and the second phase leaves them out; forbidden pairs without mass may stay in the tree.
//
// float64 throughout; a pair must be negative by kSlack of the three numbers that its reduced cost is made
// of. Prices are made anew from the tree's costs every so many pivots, and before the last search, which
// finds nothing. Which tree comes out depends on the problem alone: sums are of two numbers, in an order that
// no SIMD level changes. Serial.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/exact_transport_masses.h"
#include "core/exact_transport_tree.h"
#include "core/watch.h"

namespace geokernels {

enum class Ending : int64_t { solved, forbidden, unresolved };

// The least of cost + height over a row's columns, and the first column that has it; -1 where all are
// infinite.
struct LeastSum {
  double sum;
  int64_t column;
};

// `Least` gives a row's LeastSum from (costs, heights of the columns, how many, bound).
template <class T, class Least>
class ExactTransport {
 public:
  using Node = SpanningTree::Node;

  ExactTransport(const T* cost, int64_t rows, int64_t columns, const WholeMasses& masses, const Least& least,
                 Watch& watch)
      : given(cost),
        cost(cost),
        rows(rows),
        columns(columns),
        masses(masses),
        least(least),
        pace(watch),
        tree(rows + columns),
        listed(kListRows) {}

  Ending solve() {
    start();
    const bool needed = std::any_of(basis.begin(), basis.end(), [&](const Pair& p) { return !allowed(p); });
    Ending ending = needed ? empty_forbidden_pairs() : Ending::solved;
    if (ending == Ending::solved) ending = improve();
    if (ending != Ending::solved) return ending;
    if (needed) join_phases();
    flow = flows();
    return Ending::solved;
  }

  // The tree's arcs are those of all nodes but the last column, which is the root.
  int64_t row_of(int64_t node) const { return node < rows ? node : tree.parent[node]; }
  int64_t column_of(int64_t node) const { return (node < rows ? tree.parent[node] : node) - rows; }
  double mass_of(int64_t node) const {
    const bool carries = given[row_of(node) * columns + column_of(node)] < inf;
    return carries ? double(flow[node]) * (masses.total / double(masses.whole)) : 0;
  }
  double row_price(int64_t i) const { return tree.height[i]; }
  double column_price(int64_t j) const { return -tree.height[rows + j]; }

 private:
  static constexpr double inf = std::numeric_limits<double>::infinity();
  static constexpr double kSlack = 0x1p-44;
  static constexpr double kForbiddenShare =
      1e-6;  // of all mass, which rounded masses may leave on such pairs
  static constexpr int64_t kListRows = 16, kListTurns = 8;
  static constexpr int64_t kPatience = 1000;  // pivots a node, after which kSlack doubles

  struct Pair {
    Node row, column;
    int64_t mass;
  };

  struct Candidate {
    Node row, column;
    double cost;  // at hand, where the matrix is not
  };

  bool allowed(const Pair& p) const { return given[p.row * columns + p.column] < inf; }

  // What a pair costs in the phase at hand; nothing where it is forbidden.
  double cost_of(int64_t row, int64_t column) const {
    const double c = cost[row * columns + column];
    return c < inf ? c : 0;
  }

  // ---- start

  void start() {
    using Wide = __int128;  // masses with the trifles behind them
    constexpr int kTrifle = 32;
    std::vector<Wide> supply(rows), demand(columns);
    for (int64_t i = 0; i < rows; ++i) supply[i] = (Wide(masses.raised[i]) << kTrifle) + 1;
    for (int64_t j = 0; j < columns; ++j) demand[j] = Wide(masses.raised[rows + j]) << kTrifle;
    demand.back() += rows;
    basis.reserve(rows + columns);
    std::vector<double> offset = cheapest_in_columns();
    std::vector<Node> waiting(rows);
    std::iota(waiting.begin(), waiting.end(), 0);
    int64_t first_open = 0;
    while (!waiting.empty()) {
      size_t kept = 0;
      for (const Node i : waiting) {
        Node j = least(cost + i * columns, offset.data(), columns, inf).column;
        if (j < 0) {  // all that is left is forbidden
          while (!demand[first_open]) ++first_open;
          j = first_open;
        }
        const Wide mass = std::min(supply[i], demand[j]);
        supply[i] -= mass, demand[j] -= mass;
        basis.push_back({i, j, int64_t((mass + (Wide(1) << (kTrifle - 1))) >> kTrifle)});
        if (supply[i] > 0) offset[j] = inf, waiting[kept++] = i;
      }
      waiting.resize(kept);
    }
    plant();
  }

  std::vector<double> cheapest_in_columns() const {
    std::vector<double> found(columns, inf);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) found[j] = std::min(found[j], double(cost[i * columns + j]));
    for (double& x : found) x = x < inf ? -x : 0;
    return found;
  }

  // Makes a tree of the pairs of the basis, with the last column as its root.
  void plant() {
    const int64_t nodes = rows + columns;
    std::vector<Node> end(nodes + 1, 0), arcs(2 * basis.size());
    for (const Pair& p : basis) ++end[p.row], ++end[rows + p.column];
    for (int64_t u = 0; u < nodes; ++u) end[u + 1] += end[u];
    for (size_t k = 0; k < basis.size(); ++k)
      arcs[--end[basis[k].row]] = k, arcs[--end[rows + basis[k].column]] = k;
    std::vector<Node> waiting{Node(nodes - 1)}, order;
    while (!waiting.empty()) {
      const Node u = waiting.back();
      waiting.pop_back();
      if (!order.empty()) tree.link(order.back(), u);
      order.push_back(u);
      for (Node k = end[u]; k < end[u + 1]; ++k) {
        const Pair& p = basis[arcs[k]];
        const Node v = u < rows ? Node(rows + p.column) : p.row;
        if (v == tree.parent[u]) continue;
        tree.parent[v] = u, tree.flow[v] = p.mass;
        waiting.push_back(v);
      }
    }
    tree.link(order.back(), order.front());
    for (Node u : order) tree.size[u] = 1, tree.last[u] = u;
    for (size_t k = order.size(); --k > 0;) {
      const Node u = order[k], up = tree.parent[u];
      tree.size[up] += tree.size[u];
      if (tree.last[up] == up) tree.last[up] = tree.last[u];
    }
  }

  // ---- simplex

  // Pivots until no pair is negative; unresolved where the call is to end early, or rounding is in the way.
  Ending improve() {
    const int64_t nodes = rows + columns;
    refresh();
    slack = kSlack;
    bool fresh = true;
    candidates.clear();
    for (int64_t pivots = 1;; ++pivots) {
      if (!choose()) {
        if (fresh) return slack == kSlack && prices_are_finite() ? Ending::solved : Ending::unresolved;
        refresh();
        fresh = true;
        continue;
      }
      if (pace.stop(nodes)) return Ending::unresolved;
      pivot();
      fresh = false;
      if (pivots % nodes == 0) refresh();
      if (pivots % (kPatience * nodes) == 0) slack *= 2;
    }
  }

  bool prices_are_finite() const {
    return std::all_of(tree.height.begin(), tree.height.end(), [](double x) { return std::abs(x) < inf; });
  }

  // Makes the heights anew, from the root down.
  void refresh() {
    tree.height[tree_root()] = 0;
    for (Node u = tree.next[tree_root()]; u != tree_root(); u = tree.next[u]) {
      const Node up = tree.parent[u];
      tree.height[u] =
          u < rows ? tree.height[up] + cost_of(u, up - rows) : tree.height[up] - cost_of(up, u - rows);
    }
  }

  // Chooses the pair that enters.
  bool choose() {
    if (turns_left-- > 0 && choose_listed()) return true;
    candidates.clear();
    for (int64_t looked = 0; looked < rows;) {
      const int64_t some = std::min(listed, rows - looked);
      for (int64_t k = 0; k < some; ++k) list(next_row), next_row = next_row + 1 == rows ? 0 : next_row + 1;
      looked += some;
      turns_left = kListTurns;
      if (choose_listed()) return true;
      if (pace.stop(some * columns)) return false;
    }
    return false;
  }

  // Puts a row's most negative pair on the list.
  void list(Node i) {
    const LeastSum found = least(cost + i * columns, &tree.height[rows], columns, tree.height[i]);
    if (found.column < 0) return;
    candidates.push_back({i, Node(found.column), double(cost[i * columns + found.column])});
  }

  // The most negative pair of the list; those that are no longer negative leave it. Which they are is hard to
  // foresee: there is no branch in this loop.
  bool choose_listed() {
    size_t kept = 0, best = 0;
    double lowest = 0;
    for (const Candidate pair : candidates) {
      const double c = pair.cost, f = tree.height[pair.row], g = tree.height[rows + pair.column],
                   reduced = c + g - f;
      const bool negative = reduced < -slack * (std::abs(c) + std::abs(f) + std::abs(g));
      const bool lower = negative & (reduced < lowest);
      candidates[kept] = pair;
      best = lower ? kept : best, lowest = lower ? reduced : lowest;
      kept += negative;
    }
    candidates.resize(kept);
    if (kept == 0) return false;
    entering = candidates[best], entering_reduced = lowest;
    return true;
  }

  // Lets the pair that was chosen into the tree. Mass goes round from the highest node of the cycle down to
  // the pair's row, over the pair to its column, and up again: rows on the way down and columns on the way up
  // lose of their arcs.
  void pivot() {
    constexpr int64_t all = std::numeric_limits<int64_t>::max();
    const Node row = entering.row, column = rows + entering.column;
    Node first = SpanningTree::kNone, second = first;  // to be empty on the way down and up
    int64_t on_first = all, on_second = all;
    Node u = row, v = column;
    while (u != v) {  // the smaller subtree cannot have the other node
      if (tree.size[u] < tree.size[v]) {
        const int64_t flow = u < rows ? tree.flow[u] : all;
        first = flow < on_first ? u : first, on_first = std::min(flow, on_first);
        u = tree.parent[u];
      } else {
        const int64_t flow = v >= rows ? tree.flow[v] : all;
        second = flow <= on_second ? v : second, on_second = std::min(flow, on_second);
        v = tree.parent[v];
      }
    }
    const Node top = u;
    const bool down = on_first < on_second;
    const int64_t mass = down ? on_first : on_second;
    const Node leaving = down ? first : second;
    if (mass > 0) {
      for (u = row; u != top; u = tree.parent[u]) tree.flow[u] += u < rows ? -mass : mass;
      for (v = column; v != top; v = tree.parent[v]) tree.flow[v] += v < rows ? mass : -mass;
    }
    const Node foot = down ? row : column, branch = down ? column : row;
    const double shift = down ? entering_reduced : -entering_reduced;
    tree.cut(leaving, top);
    tree.turn(leaving, foot);
    if (2 * int64_t(tree.size[foot]) <= rows + columns) {
      tree.hang(foot, branch, top, mass);
      tree.lift(foot, tree.next[tree.last[foot]], shift);
    } else {  // the others are fewer
      tree.lift(tree_root(), tree_root(), -shift);
      tree.hang(foot, branch, top, mass);
    }
  }

  Node tree_root() const { return rows + columns - 1; }

  // ---- forbidden pairs

  // The first phase; forbidden where mass must stay on such pairs.
  Ending empty_forbidden_pairs() {
    own.resize(rows * columns);
    for (int64_t k = 0; k < rows * columns; ++k) own[k] = given[k] < inf ? 0 : 1;
    cost = own.data();
    if (const Ending ending = improve(); ending != Ending::solved) return ending;
    flow = flows();
    int64_t left = 0;
    for (Node u = 0; u < tree_root(); ++u)
      if (!allowed({Node(row_of(u)), Node(column_of(u)), 0})) left += flow[u];
    if (double(left) > kForbiddenShare * double(masses.whole)) return Ending::forbidden;
    first_heights = tree.height;
    for (int64_t i = 0, k = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j, ++k)
        own[k] = first_reduced(i, j) > 0 ? std::numeric_limits<T>::infinity() : given[k];
    return Ending::solved;
  }

  // Of a pair that is allowed; a whole number.
  double first_reduced(int64_t i, int64_t j) const { return first_heights[rows + j] - first_heights[i]; }

  // Adds as much of the first phase's prices to the second's as the pairs that were left out ask for.
  void join_phases() {
    double share = 0;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const double c = given[i * columns + j], first = first_reduced(i, j);
        if (c < inf && first > 0)
          share = std::max(share, (tree.height[i] - tree.height[rows + j] - c) / first);
      }
    for (int64_t u = 0; u < rows + columns; ++u) tree.height[u] += share * first_heights[u];
  }

  // The flows of the tree for the masses as they were given: those that had to be raised are zero.
  std::vector<int64_t> flows() const {
    if (!masses.some_raised) return tree.flow;
    std::vector<int64_t> found(rows + columns), net(masses.units);
    for (int64_t j = 0; j < columns; ++j) net[rows + j] = -net[rows + j];
    for (Node u = tree.before[tree_root()]; u != tree_root(); u = tree.before[u]) {
      net[tree.parent[u]] += net[u];
      found[u] = std::max<int64_t>(u < rows ? net[u] : -net[u], 0);
    }
    return found;
  }

  const T *given, *cost;  // cost: of the phase at hand
  const int64_t rows, columns;
  const WholeMasses& masses;
  const Least& least;
  Pace pace;
  SpanningTree tree;
  std::vector<Pair> basis;  // of the start
  std::vector<Candidate> candidates;
  Candidate entering{};
  double entering_reduced = 0;
  int64_t listed, turns_left = 0;
  Node next_row = 0;
  double slack = kSlack;
  std::vector<T> own;
  std::vector<double> first_heights;
  std::vector<int64_t> flow;
};

}  // namespace geokernels
