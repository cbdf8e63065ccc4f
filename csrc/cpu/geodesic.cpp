// geodesic_cosine and its gradient on the CPU: host loops, and the ways that lead to them from Python.

#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>
#include <vector>

#include "cpu/direct.h"
#include "cpu/finite.h"
#include "cpu/workers.h"
#include "host/geodesic_sizes.h"

#define GEOKERNELS_HALF_VECTORS
#define GEOKERNELS_KERNEL "cpu/geodesic_backward_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

// Where each result that the gradient needs begins, and how far apart those of two problems are.
template <class T>
struct FrameOf {
  T *left, *right, *g, *coordinates;
  int64_t squares, lines, rows;  // from one problem to the next
};

struct Cosines {
  int64_t count, N, D, K, L, M = std::max(K, L);

  // Multiplications a problem, about.
  int64_t cost() const { return (4 * N + M) * M * D; }

  // Numbers that the gradient needs, a problem.
  int64_t frame() const { return M * (2 * M + 1 + 4 * N); }

  // Those of all problems side by side, in one piece of memory.
  template <class T>
  FrameOf<T> framed(T* memory) const {
    T *const right = memory + M * M, *const g = right + M * M;
    return {memory, right, g, g + M, frame(), frame(), frame()};
  }

  // Those in tensors of their own.
  template <class T>
  FrameOf<T> apart(T* left, T* right, T* g, T* coordinates) const {
    return {left, right, g, coordinates, M * M, M, 4 * N * M};
  }

  template <class T>
  void make(const T* x, const T* y, const T* p, const T* q, double eps, T* cosine,
            const FrameOf<T>& to) const {
    share_problems<T>(count, cost(), room_for<baseline::CosineRoom, T>(N, M), [&](int64_t b, auto work) {
      GEOKERNELS_AT_LEVEL(cosine_problem<T>, x + b * N * D, y + b * N * D, N, p + b * K * D, q + b * L * D, N,
                          D, K, L, eps, cosine + b * N, to.left + b * to.squares, to.right + b * to.squares,
                          to.g + b * to.lines, to.coordinates + b * to.rows, work);
    });
  }

  // to: where gradients to x, y, p and q go, null for those that nobody wants.
  template <class T>
  void differentiate(const T* grad, const T* x, const T* y, const T* p, const T* q,
                     const FrameOf<const T>& of, double eps, T* const* to) const {
    share_problems<T>(
        count, cost(), room_for<baseline::CosineBackwardRoom, T>(N, M), [&](int64_t b, auto work) {
          const int64_t sizes[] = {N * D, N * D, K * D, L * D};
          T* own[4];
          for (int i = 0; i < 4; ++i) own[i] = to[i] ? to[i] + b * sizes[i] : nullptr;
          GEOKERNELS_AT_LEVEL(cosine_backward_problem<T>, grad + b * N, x + b * N * D, y + b * N * D, N,
                              p + b * K * D, q + b * L * D, of.left + b * of.squares,
                              of.right + b * of.squares, of.g + b * of.lines, of.coordinates + b * of.rows, N,
                              D, K, L, eps, own, work);
        });
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> geodesic_cosine(const Tensor& x, const Tensor& y,
                                                                   const Tensor& p, const Tensor& q,
                                                                   double eps) {
  const GeodesicSizes s(x, y, p, q);
  CosineResults out = s.fresh_results();
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Cosines cosines{s.batch.count, s.N, s.D, s.K, s.L};
    cosines.make(
        read<T>(x), read<T>(y), read<T>(p), read<T>(q), eps, write<T>(out.cosine),
        cosines.apart(write<T>(out.left), write<T>(out.right), write<T>(out.g), write<T>(out.coordinates)));
  });
  return out.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> geodesic_cosine_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& p, const Tensor& q,
    const Tensor& left, const Tensor& right, const Tensor& g, const Tensor& coordinates, double eps,
    bool to_x, bool to_y, bool to_p, bool to_q) {
  const GeodesicSizes s(x, y, p, q);
  s.check_results(grad, left, right, g, coordinates);
  Tensor grad_x = s.fresh_gradient(to_x, s.N), grad_y = s.fresh_gradient(to_y, s.N);
  Tensor grad_p = s.fresh_gradient(to_p, s.K), grad_q = s.fresh_gradient(to_q, s.L);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Cosines cosines{s.batch.count, s.N, s.D, s.K, s.L};
    T* const to[4] = {to_x ? write<T>(grad_x) : nullptr, to_y ? write<T>(grad_y) : nullptr,
                      to_p ? write<T>(grad_p) : nullptr, to_q ? write<T>(grad_q) : nullptr};
    cosines.differentiate(read<T>(grad), read<T>(x), read<T>(y), read<T>(p), read<T>(q),
                          cosines.apart(read<T>(left), read<T>(right), read<T>(g), read<T>(coordinates)), eps,
                          to);
  });
  return {grad_x, grad_y, grad_p, grad_q};
}

// The inputs x, y, p and q as Python gives them.
struct GivenCosine {
  Plain x, y, p, q;

  bool look_at(Arguments given) {
    if (!look(given[0], 2, x) || !look(given[1], 2, y) || !look(given[2], 2, p) || !look(given[3], 2, q))
      return false;
    const int64_t D = x.last(1);
    return x.rows && y.rows && p.columns && q.columns && y.fits(x, {x.last(2), D}) &&
           p.fits(x, {D, p.last(1)}) && q.fits(x, {D, q.last(1)});
  }

  Cosines sizes() const { return {x.batch(2), x.last(2), x.last(1), p.last(1), q.last(1)}; }
};

template <class T>
const T* at(const Plain& x) {
  return static_cast<const T*>(x.data);
}

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

}  // namespace

// x, y, p, q, eps, the most directions -> cosines (..., N), and what the gradient needs in one tensor (...,
// numbers)
PyObject* direct_cosine(PyObject*, Arguments given, Py_ssize_t count) {
  GivenCosine in;
  double eps;
  int64_t most;
  if (count != 6 || !in.look_at(given) || !number(given[4], kUnbounded, eps) || !whole_number(given[5], most))
    Py_RETURN_NONE;
  const Cosines cosines = in.sizes();
  if (cosines.M > most) Py_RETURN_NONE;
  void *cosine, *memory;
  const Owned out(make(given[0], in.x, {cosines.N}, cosine)),
      frame(make(given[0], in.x, {cosines.frame()}, memory));
  if (!out || !frame) return nullptr;
  bool finite = true;
  const bool done = directly(in.x, [&](auto zero) {
    using T = decltype(zero);
    cosines.make(at<T>(in.x), at<T>(in.y), at<T>(in.p), at<T>(in.q), eps, static_cast<T*>(cosine),
                 cosines.framed(static_cast<T*>(memory)));
    finite = all_finite(reinterpret_cast<uintptr_t>(cosine), cosines.count * cosines.N, in.x.wide);
  });
  if (!done) return nullptr;
  if (!finite) Py_RETURN_NONE;
  return PyTuple_Pack(2, out.get(), frame.get());
}

// gradient to the cosines, x, y, p, q, what the gradient needs, eps, which are wanted -> those, or None each
PyObject* direct_cosine_backward(PyObject*, Arguments given, Py_ssize_t count) {
  GivenCosine in;
  Plain grad, frame;
  double eps;
  if (count != 8 || !look(given[0], 1, grad) || !in.look_at(given + 1) || !look(given[5], 1, frame) ||
      !number(given[6], kUnbounded, eps) || !PyTuple_CheckExact(given[7]) || PyTuple_GET_SIZE(given[7]) < 4)
    Py_RETURN_NONE;
  const Cosines cosines = in.sizes();
  if (!grad.fits(in.x, {cosines.N}) || !frame.rows || !frame.fits(in.x, {cosines.frame()})) Py_RETURN_NONE;
  const Owned out(PyTuple_New(4));
  void* to[4] = {};
  for (int i = 0; out && i < 4; ++i) {
    const bool wanted = PyTuple_GET_ITEM(given[7], i) == Py_True;
    const int64_t D = cosines.D, columns = i < 2 ? D : i == 2 ? cosines.K : cosines.L;
    PyObject* made = Py_None;
    if (!wanted)
      Py_INCREF(made);
    else
      made = make(given[1], in.x, {i < 2 ? cosines.N : D, columns}, to[i], i >= 2);
    if (!made) return nullptr;
    PyTuple_SET_ITEM(out.get(), i, made);
  }
  if (!out) return nullptr;
  const bool done = directly(in.x, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> upstream = copied<T>(grad);
    T* const typed[4] = {static_cast<T*>(to[0]), static_cast<T*>(to[1]), static_cast<T*>(to[2]),
                         static_cast<T*>(to[3])};
    cosines.differentiate(upstream.data(), at<T>(in.x), at<T>(in.y), at<T>(in.p), at<T>(in.q),
                          cosines.framed(at<T>(frame)), eps, typed);
  });
  return done ? Py_NewRef(out.get()) : nullptr;
}

}  // namespace geokernels

STABLE_TORCH_LIBRARY_IMPL(geokernels, CPU, m) {
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
