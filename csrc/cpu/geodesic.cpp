// geodesic_cosine and its gradient on the CPU: host loops, and the ways that lead to them from Python.

#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <vector>

#include "cpu/direct.h"
#include "cpu/finite.h"
#include "cpu/workers.h"
#include "host/geodesic_sizes.h"
#include "host/huge_pages.h"
#include "host/operators.h"

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

// What a gradient needs, kept for it by Python.
class Kept {
 public:
  Kept(int64_t count, bool wide)
      : count_(count), wide_(wide), memory_(::operator new[](count * size(), kAligned)) {
    in_huge_pages(memory_, count * size());
    if (kPoison && wide) std::fill_n(at<double>(), count, nothing<double>());
    if (kPoison && !wide) std::fill_n(at<float>(), count, nothing<float>());
  }
  ~Kept() { ::operator delete[](memory_, kAligned); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  template <class T>
  T* at() const {
    return static_cast<T*>(memory_);
  }

  bool fits(int64_t count, bool wide) const { return count == count_ && wide == wide_; }

  // Hands it to Python.
  static PyObject* give(std::unique_ptr<Kept> kept) {
    PyObject* const capsule = PyCapsule_New(kept.get(), kName, [](PyObject* x) { delete of(x); });
    if (capsule) kept.release();
    return capsule;
  }

  // Of an object from give(), or null with an exception set.
  static Kept* of(PyObject* x) { return static_cast<Kept*>(PyCapsule_GetPointer(x, kName)); }

 private:
  static constexpr const char* kName = "geokernels.kept";
  static constexpr std::align_val_t kAligned{kCacheLine};

  int64_t size() const { return wide_ ? sizeof(double) : sizeof(float); }

  const int64_t count_;
  const bool wide_;
  void* const memory_;
};

// What a node of autograd keeps.
struct Node {
  Owned saved, wanted, kept, eps;

  explicit Node(PyObject* node)
      : saved(attribute(node, "saved_tensors")),
        wanted(saved ? attribute(node, "needs_input_grad") : nullptr),
        kept(wanted ? attribute(node, "frame") : nullptr),
        eps(kept ? attribute(node, "eps") : nullptr) {}

  // Or an exception is set.
  explicit operator bool() const { return bool(eps); }

 private:
  static PyObject* attribute(PyObject* of, const char* name) { return PyObject_GetAttrString(of, name); }
};

bool is_tuple(PyObject* x, Py_ssize_t size) { return PyTuple_CheckExact(x) && PyTuple_Size(x) == size; }

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

}  // namespace

// x, y, p, q, eps, the most directions, those in float64 -> cosines (..., N), and where a gradient is wanted
// what it needs, for Python to keep, or else None
PyObject* direct_cosine(PyObject*, Arguments given, Py_ssize_t count) {
  GivenCosine in;
  double eps;
  int64_t most, most_wide;
  if (count != 7 || !in.look_at(given) || !number(given[4], kUnbounded, eps) ||
      !whole_number(given[5], most) || !whole_number(given[6], most_wide))
    Py_RETURN_NONE;
  const Cosines cosines = in.sizes();
  if (cosines.M > (in.x.wide ? most_wide : most)) Py_RETURN_NONE;
  void* cosine;
  const Owned out(make(given[0], in.x, {cosines.N}, cosine));
  if (!out) return nullptr;
  const bool wanted = is_wanted(given, 4);
  auto frame = std::make_unique<Kept>(cosines.count * cosines.frame(), in.x.wide);
  bool finite = true;
  const bool done = directly(in.x, [&](auto zero) {
    using T = decltype(zero);
    cosines.make(at<T>(in.x), at<T>(in.y), at<T>(in.p), at<T>(in.q), eps, static_cast<T*>(cosine),
                 cosines.framed(frame->at<T>()));
    finite = all_finite(reinterpret_cast<uintptr_t>(cosine), cosines.count * cosines.N, in.x.wide);
  });
  if (!done) return nullptr;
  if (!finite) Py_RETURN_NONE;
  const Owned kept(wanted ? Kept::give(std::move(frame)) : Py_NewRef(Py_None));
  return kept ? PyTuple_Pack(2, out.get(), kept.get()) : nullptr;
}

// the node of autograd, which keeps x, y, p, q, what the gradient needs and eps, and the gradient to the
// cosines -> those to what the node was made of: None twice, x, y, p and q, each None where it is not wanted
PyObject* direct_cosine_backward(PyObject*, Arguments given, Py_ssize_t count) {
  if (count != 2 || gradients_have_gradients()) Py_RETURN_NONE;
  const Node node(given[0]);
  if (!node) return nullptr;
  GivenCosine in;
  Plain grad;
  double eps;
  if (!is_tuple(node.saved.get(), 4) || !is_tuple(node.wanted.get(), 6)) Py_RETURN_NONE;
  PyObject* saved[4];
  for (int i = 0; i < 4; ++i) saved[i] = PyTuple_GetItem(node.saved.get(), i);
  if (!look(given[1], 1, grad) || !in.look_at(saved) || !number(node.eps.get(), kUnbounded, eps))
    Py_RETURN_NONE;
  const Cosines cosines = in.sizes();
  const Kept* const kept = Kept::of(node.kept.get());
  if (!kept) return nullptr;
  if (!grad.fits(in.x, {cosines.N}) || !kept->fits(cosines.count * cosines.frame(), in.x.wide))
    Py_RETURN_NONE;
  Owned out(PyTuple_New(6));
  if (!out) return nullptr;
  PyTuple_SetItem(out.get(), 0, Py_NewRef(Py_None));
  PyTuple_SetItem(out.get(), 1, Py_NewRef(Py_None));
  void* to[4] = {};
  for (int i = 0; i < 4; ++i) {
    const bool wanted = PyTuple_GetItem(node.wanted.get(), 2 + i) == Py_True;
    const int64_t D = cosines.D, columns = i < 2 ? D : i == 2 ? cosines.K : cosines.L;
    PyObject* const made =
        wanted ? make(saved[0], in.x, {i < 2 ? cosines.N : D, columns}, to[i], i >= 2) : Py_NewRef(Py_None);
    if (!made) return nullptr;
    PyTuple_SetItem(out.get(), 2 + i, made);
  }
  const bool done = directly(in.x, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> upstream = copied<T>(grad);
    T* const typed[4] = {static_cast<T*>(to[0]), static_cast<T*>(to[1]), static_cast<T*>(to[2]),
                         static_cast<T*>(to[3])};
    cosines.differentiate(upstream.data(), at<T>(in.x), at<T>(in.y), at<T>(in.p), at<T>(in.q),
                          cosines.framed(static_cast<const T*>(kept->at<T>())), eps, typed);
  });
  return done ? out.release() : nullptr;
}

}  // namespace geokernels

GEOKERNELS_OPERATORS(CPU, m) {
  m.impl("geodesic_cosine", TORCH_BOX(&geokernels::geodesic_cosine));
  m.impl("geodesic_cosine_backward", TORCH_BOX(&geokernels::geodesic_cosine_backward));
}
