// The tensors of geodesic_cosine and its gradient: sizes, checks and memory for the results.

#pragma once

#include <algorithm>
#include <tuple>

#include "host/fresh.h"
#include "host/tensors.h"

namespace geokernels {

struct CosineResults {
  Tensor cosine;       // [..., N]
  Tensor left, right;  // [..., M, M]
  Tensor g;            // [..., M]
  Tensor coordinates;  // [..., 4, N, M]

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> all() const {
    return {cosine, left, right, g, coordinates};
  }
};

struct GeodesicSizes {
  const Tensor& x;
  Batch batch;
  int64_t N, D, K, L, M;

  GeodesicSizes(const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q) : x(x), batch(x, 2) {
    for (const Tensor* part : {&x, &p, &q}) check_first(*part, 2);
    N = x.size(-2);
    D = x.size(-1);
    K = p.size(-2);
    L = q.size(-2);
    M = std::max(K, L);
    check(y, batch.with({N, D}), x);
    check(p, batch.with({K, D}), x);
    check(q, batch.with({L, D}), x);
  }

  CosineResults fresh_results() const {
    return {fresh(x, batch.with({N})), fresh(x, batch.with({M, M})), fresh(x, batch.with({M, M})),
            fresh(x, batch.with({M})), fresh(x, batch.with({4, N, M}))};
  }

  // What the backward operator is given: the gradient of the cosines, and the other results.
  void check_results(const Tensor& grad, const Tensor& left, const Tensor& right, const Tensor& g,
                     const Tensor& coordinates) const {
    check(grad, batch.with({N}), x);
    for (const Tensor* part : {&left, &right}) check(*part, batch.with({M, M}), x);
    check(g, batch.with({M}), x);
    check(coordinates, batch.with({4, N, M}), x);
  }

  // Memory for the gradient to so many rows a problem; empty where it is not wanted.
  Tensor fresh_gradient(bool wanted, int64_t rows) const {
    return wanted ? fresh(x, batch.with({rows, D})) : fresh(x, {0});
  }
};

}  // namespace geokernels
