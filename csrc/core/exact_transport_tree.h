// A spanning tree of the rows and columns of a transport problem, in an order in which subtrees are together.
//
// Nodes are the rows 0 .. N - 1, then the columns N .. N + M - 1. Every node but the root has an arc to its
// parent, kept under the node's own number. All arcs lead from rows to columns: the flow of an arc goes up
// from a row to its parent, and down to a column from its parent. `height` is the potential f of a row and
// -g of a column: C[i, j] = height[i] - height[j] on the arcs of the tree, and a subtree is moved by adding
// one number to all its heights.
//
// `next` and `before` chain the nodes in preorder, with the root after the last; `last` is the last node of a
// subtree, and `size` counts its nodes.

#pragma once

#include <cstdint>
#include <vector>

namespace geokernels {

class SpanningTree {
 public:
  using Node = int32_t;
  static constexpr Node kNone = -1;

  explicit SpanningTree(int64_t nodes)
      : parent(nodes, kNone),
        next(nodes),
        before(nodes),
        last(nodes),
        size(nodes),
        flow(nodes),
        height(nodes) {}

  void link(Node u, Node v) { next[u] = v, before[v] = u; }

  // Takes the subtree of `top` out of the chain, and out of the sizes below `end`. It stays a chain itself.
  void cut(Node top, Node end) {
    const Node head = before[top], tail = last[top], count = size[top];
    link(head, next[tail]);
    for (Node u = parent[top]; u != end; u = parent[u]) size[u] -= count;
    for (Node u = parent[top]; u != kNone && last[u] == tail; u = parent[u]) last[u] = head;
  }

  // Makes `foot` the root of the subtree of `top`, which has been cut. Arcs between the two keep their flows,
  // each under the number of its other end.
  void turn(Node top, Node foot) {
    const Node count = size[top];
    Node tail = last[foot];  // of the new chain, which begins as the subtree of `foot`
    Node child = foot, above = parent[foot];
    // of the child, as it was: what came before and after its subtree, its last node, size and flow
    Node head = before[foot], after = next[tail], child_last = tail, child_size = size[foot];
    int64_t child_flow = flow[foot];
    while (child != top) {
      const Node own_head = before[above], own_last = last[above], own_size = size[above];
      const Node own_after = own_last == child_last ? after : next[own_last], upper = parent[above];
      const int64_t own_flow = flow[above];
      link(tail, above);  // what `above` has before the child, and then what it has after it
      tail = head;
      if (own_last != child_last) link(tail, after), tail = own_last;
      parent[above] = child, size[above] = count - child_size, flow[above] = child_flow;
      head = own_head, after = own_after, child_last = own_last, child_size = own_size, child_flow = own_flow;
      child = above, above = upper;
    }
    size[foot] = count;
    for (Node u = top; u != foot; u = parent[u]) last[u] = tail;
    last[foot] = tail;
  }

  // Hangs the subtree of `foot`, which has been cut, under `branch`; adds it to the sizes below `end`.
  void hang(Node foot, Node branch, Node end, int64_t mass) {
    const Node tail = last[foot], count = size[foot];
    parent[foot] = branch, flow[foot] = mass;
    link(tail, next[branch]);
    link(branch, foot);
    for (Node u = branch; u != end; u = parent[u]) size[u] += count;
    for (Node u = branch; u != kNone && last[u] == branch; u = parent[u]) last[u] = tail;
  }

  // Adds to the heights from `first` to `end`, which it leaves out, along the chain.
  void lift(Node first, Node end, double shift) {
    Node u = first;
    do height[u] += shift, u = next[u];
    while (u != end);
  }

  std::vector<Node> parent, next, before, last, size;
  std::vector<int64_t> flow;
  std::vector<double> height;
};

}  // namespace geokernels
