// Calls from Python past the dispatcher, which takes longer to find an operator than small problems take.
//
// Tensors are looked at through the C functions by which torch.Tensor exchanges them, DLPack's
// __dlpack_c_exchange_api__, whose ABI is stable; Python makes the new ones. What is not a plain, dense
// tensor of float32 or float64 in CPU memory is declined: such a call returns None, and the caller goes by
// the dispatcher, which has a rule or a refusal for everything. So it does where somebody listens to the
// dispatcher: a mode, a transform, the profiler, forward-mode differentiation.

#pragma once

#include <exception>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "host/python.h"
#include "host/tensors.h"

namespace geokernels {

constexpr int64_t kMostDims = 16;  // those of more are declined

using Arguments = PyObject* const*;

// A tensor of problems side by side, as long as its Python object lives.
struct Plain {
  void* data;
  int64_t dims;
  const int64_t *sizes, *strides;
  bool wide;     // float64
  bool rows;     // dense
  bool columns;  // dense with its last two dimensions exchanged

  int64_t last(int64_t nth) const { return sizes[dims - nth]; }

  // Problems, each with `inner` dimensions.
  int64_t batch(int64_t inner) const;

  // Whether its last dimensions are `shape`, and the others and the dtype those of `like`, whose problems
  // have two.
  bool fits(const Plain& like, std::initializer_list<int64_t> shape) const;
};

// Whether x is a tensor to be taken, of so many dimensions at least and without a size 0.
bool look(PyObject* x, int64_t least, Plain& out);

// Its numbers in order, whatever its strides: those of a gradient that was broadcast are 0.
template <class T>
std::vector<T> copied(const Plain& x) {
  std::vector<T> out(x.batch(0));
  int64_t index[kMostDims] = {}, from = 0;
  for (T& number : out) {
    number = static_cast<const T*>(x.data)[from];
    for (int64_t dim = x.dims - 1; dim >= 0; --dim) {
      from += x.strides[dim];
      if (++index[dim] < x.sizes[dim]) break;
      from -= x.strides[dim] * x.sizes[dim];
      index[dim] = 0;
    }
  }
  return out;
}

// A number between 0 and `below`; false for anything but Python's own, which others explain.
bool number(PyObject* x, double below, double& out);
bool whole_number(PyObject* x, int64_t& out);

// A new tensor in the dtype of `like`, with its batch, whose problems have two dimensions, and this shape;
// data is its address. In columns, its last two dimensions lie in memory exchanged. Null with an exception
// set where it cannot be made.
PyObject* make(PyObject* like, const Plain& of, std::initializer_list<int64_t> shape, void*& data,
               bool columns = false);

// Whether a derivative of what is computed from so many tensors is wanted.
bool is_wanted(Arguments tensors, int64_t count);

// Whether operations on tensors are recorded now: in a backward pass, for second derivatives.
bool gradients_have_gradients();

// A reference to a Python object, or none.
class Owned {
 public:
  explicit Owned(PyObject* object) : object_(object) {}
  ~Owned() { Py_XDECREF(object_); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  explicit operator bool() const { return object_; }
  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }

 private:
  PyObject* object_;
};

// Tells Python of an exception in C++.
void raise(const std::string& sentence);

// Runs work() without Python's lock; false, with an exception set, where it throws.
template <class Work>
bool without_lock(const Work& work) {
  PyThreadState* const state = PyEval_SaveThread();
  std::string sentence;
  try {
    work();
  } catch (const std::exception& error) {
    sentence = error.what();
  }
  PyEval_RestoreThread(state);
  if (!sentence.empty()) raise(sentence);
  return sentence.empty();
}

// Calls work(T()) with the number type, without Python's lock; false, with an exception set, where it throws.
template <class Work>
bool directly(const Plain& like, const Work& work) {
  return without_lock([&] { like.wide ? work(double()) : work(float()); });
}

// For Python, in the order of their arguments; None where they decline.
PyObject* use_exchange(PyObject*, Arguments given, Py_ssize_t count);
PyObject* nobody_listens(PyObject*, Arguments given, Py_ssize_t count);
PyObject* direct_basis(PyObject*, Arguments given, Py_ssize_t count);
PyObject* direct_basis_backward(PyObject*, Arguments given, Py_ssize_t count);
PyObject* direct_cosine(PyObject*, Arguments given, Py_ssize_t count);
PyObject* direct_cosine_backward(PyObject*, Arguments given, Py_ssize_t count);

}  // namespace geokernels
