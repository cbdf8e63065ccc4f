// subspace_basis and its gradient on the CPU: host loops, and the ways that lead to them from Python.

#include <tuple>

#include "cpu/direct.h"
#include "cpu/finite.h"
#include "cpu/workers.h"
#include "host/operators.h"
#include "host/subspace_sizes.h"

#define GEOKERNELS_HALF_VECTORS
#define GEOKERNELS_KERNEL "cpu/subspace_kernel.h"
#include "cpu/each_level.h"

namespace geokernels {
namespace {

struct Bases {
  int64_t count, N, D, R = std::min(N, D);

  // left may be null.
  template <class T>
  void make(const T* x, double rtol, T* left, T* directions, T* values) const {
    share_problems<T>(count, N * D * R, room_for<baseline::BasisRoom, T>(N, D), [&](int64_t b, auto work) {
      GEOKERNELS_AT_LEVEL(basis_problem<T>, x + b * N * D, N, D, rtol, left ? left + b * R * N : nullptr,
                          directions + b * R * D, values + b * R, work);
    });
  }

  template <class T>
  void differentiate(const T* grad_directions, const T* grad_values, const T* left, const T* directions,
                     const T* values, int64_t rank, T* grad_x) const {
    share_problems<T>(
        count, N * D * R, room_for<baseline::BasisBackwardRoom, T>(N, D), [&](int64_t b, auto work) {
          GEOKERNELS_AT_LEVEL(basis_backward_problem<T>, grad_directions + b * R * D,
                              grad_values ? grad_values + b * R : nullptr, left + b * R * N,
                              directions + b * R * D, values + b * R, N, D, rank, grad_x + b * N * D, work);
        });
  }
};

std::tuple<Tensor, Tensor, Tensor> subspace_basis(const Tensor& x, int64_t, double rtol) {
  const BasisSizes s(x);
  BasisResults out = s.fresh_results(x);
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Bases bases{s.batch.count, s.N, s.D};
    bases.make(read<T>(x), rtol, write<T>(out.left), write<T>(out.directions), write<T>(out.values));
  });
  return out.all();
}

Tensor subspace_basis_backward(const Tensor& grad_directions, const MaybeTensor& grad_values,
                               const Tensor& left, const Tensor& directions, const Tensor& values,
                               int64_t rank) {
  const BasisSizes s(left, directions, values);
  s.check_gradients(grad_directions, grad_values, left);
  Tensor grad_x = fresh(left, s.batch.with({s.N, s.D}));
  with_type(left, [&](auto zero) {
    using T = decltype(zero);
    const Bases bases{s.batch.count, s.N, s.D};
    bases.differentiate(read<T>(grad_directions), grad_values ? read<T>(*grad_values) : nullptr,
                        read<T>(left), read<T>(directions), read<T>(values), rank, write<T>(grad_x));
  });
  return grad_x;
}

}  // namespace

// x, rank or None, rtol or None, the most rows in float64 -> basis (..., D, R), values (..., R), and, where a
// gradient is wanted, left (..., R, N) for it, or else None
PyObject* direct_basis(PyObject*, Arguments given, Py_ssize_t count) {
  Plain x;
  int64_t most;
  if (count != 4 || !look(given[0], 2, x) || !x.rows || !whole_number(given[3], most)) Py_RETURN_NONE;
  const Bases bases{x.batch(2), x.last(2), x.last(1)};
  const int64_t N = bases.N, D = bases.D, R = bases.R;
  if (x.wide && N > most) Py_RETURN_NONE;
  constexpr double single = std::numeric_limits<float>::epsilon(),
                   both = std::numeric_limits<double>::epsilon();
  double rtol = double(std::max(N, D)) * (x.wide ? both : single);
  int64_t rank = R;
  if (given[1] != Py_None && !whole_number(given[1], rank)) Py_RETURN_NONE;
  if (given[2] != Py_None && !number(given[2], 1, rtol)) Py_RETURN_NONE;
  if (rank < 1 || rank > R) Py_RETURN_NONE;

  void *directions, *values, *left = nullptr;
  const Owned basis(make(given[0], x, {D, R}, directions, true)), lengths(make(given[0], x, {R}, values)),
      frame(is_wanted(given, 1) ? make(given[0], x, {R, N}, left) : Py_NewRef(Py_None));
  if (!basis || !lengths || !frame) return nullptr;
  bool finite = true;
  const bool done = directly(x, [&](auto zero) {
    using T = decltype(zero);
    bases.make(static_cast<const T*>(x.data), rtol, static_cast<T*>(left), static_cast<T*>(directions),
               static_cast<T*>(values));
    finite = all_finite(reinterpret_cast<uintptr_t>(values), bases.count * R, x.wide);
  });
  if (!done) return nullptr;
  if (!finite) Py_RETURN_NONE;
  return PyTuple_Pack(3, basis.get(), lengths.get(), frame.get());
}

// gradients to basis and to values or None, left, basis, values, rank -> gradient to x
PyObject* direct_basis_backward(PyObject*, Arguments given, Py_ssize_t count) {
  Plain grad, grad_values{}, left, basis, values;
  int64_t rank;
  if (count != 6 || !look(given[0], 2, grad) || !look(given[2], 2, left) || !look(given[3], 2, basis) ||
      !look(given[4], 1, values) || !whole_number(given[5], rank))
    Py_RETURN_NONE;
  const Bases bases{left.batch(2), left.last(1), basis.last(2)};
  const int64_t N = bases.N, D = bases.D, R = bases.R;
  const bool with_values = given[1] != Py_None;
  if (with_values && !(look(given[1], 1, grad_values) && grad_values.fits(left, {R}) && grad_values.rows))
    Py_RETURN_NONE;
  if (!left.rows || left.last(2) != R || !basis.fits(left, {D, R}) || !basis.columns ||
      !grad.fits(left, {D, R}) || !grad.columns || !values.fits(left, {R}) || !values.rows)
    Py_RETURN_NONE;
  void* to_x;
  Owned out(make(given[2], left, {N, D}, to_x));
  if (!out) return nullptr;
  const bool done = directly(left, [&](auto zero) {
    using T = decltype(zero);
    auto at = [](const Plain& of) { return static_cast<const T*>(of.data); };
    bases.differentiate(at(grad), with_values ? at(grad_values) : nullptr, at(left), at(basis), at(values),
                        rank, static_cast<T*>(to_x));
  });
  return done ? out.release() : nullptr;
}

}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) {
  m.impl("subspace_basis", TORCH_BOX(&geokernels::subspace_basis));
  m.impl("subspace_basis_backward", TORCH_BOX(&geokernels::subspace_basis_backward));
}
