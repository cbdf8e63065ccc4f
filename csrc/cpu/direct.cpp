#include "cpu/direct.h"

#include "cpu/exchange.h"
#include "cpu/raised.h"
#include "host/huge_pages.h"

namespace geokernels {
namespace {

// Python's types torch.Tensor and torch.nn.Parameter; subclasses have rules of their own.
PyObject *tensor_type = nullptr, *parameter_type = nullptr;

exchange::Tell tell = nullptr;

// torch's functions that count or tell of those who listen to the dispatcher, each false where nobody does;
// where forward mode keeps its level; and whether gradients are wanted at all.
PyObject *listeners = nullptr, *forward_mode = nullptr, *grad_mode = nullptr;

// What a function without arguments answers: 1, 0, or -1 with an exception set.
int ask(PyObject* function) {
  const Owned answer(PyObject_CallNoArgs(function));
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

bool told(PyObject* x, Plain& out) {
  const auto type = reinterpret_cast<PyObject*>(Py_TYPE(x));
  if (!tell || (type != tensor_type && type != parameter_type)) return false;
  exchange::Seen seen;
  if (tell(x, &seen) != 0) return PyErr_Clear(), false;
  const exchange::DataType dtype = seen.dtype;
  const bool real =
      dtype.code == exchange::kFloat && dtype.lanes == 1 && (dtype.bits == 32 || dtype.bits == 64);
  if (!real || seen.device.type != exchange::kCpu || !seen.data) return false;
  out.data = static_cast<char*>(seen.data) + seen.byte_offset;
  out.dims = seen.ndim;
  out.sizes = seen.shape;
  out.strides = seen.strides;
  out.wide = dtype.bits == 64;
  return true;
}

// Whether numbers lie side by side, the last two dimensions exchanged or not.
bool dense(const Plain& x, bool exchanged) {
  if (exchanged && x.dims < 2) return false;
  int64_t next = 1;
  for (int64_t nth = 1; nth <= x.dims; ++nth) {
    const int64_t dim = x.dims - (exchanged && nth <= 2 ? 3 - nth : nth);
    if (x.sizes[dim] != 1 && x.strides[dim] != next) return false;
    next *= x.sizes[dim];
  }
  return true;
}

}  // namespace

int64_t Plain::batch(int64_t inner) const {
  int64_t count = 1;
  for (int64_t dim = 0; dim + inner < dims; ++dim) count *= sizes[dim];
  return count;
}

bool Plain::fits(const Plain& like, std::initializer_list<int64_t> shape) const {
  const int64_t leading = like.dims - 2;
  if (wide != like.wide || dims != leading + int64_t(shape.size())) return false;
  int64_t dim = 0;
  for (; dim < leading; ++dim)
    if (sizes[dim] != like.sizes[dim]) return false;
  for (const int64_t size : shape)
    if (sizes[dim++] != size) return false;
  return true;
}

bool look(PyObject* x, int64_t least, Plain& out) {
  if (!told(x, out) || out.dims < least || out.dims > kMostDims) return false;
  for (int64_t dim = 0; dim < out.dims; ++dim)
    if (out.sizes[dim] == 0) return false;
  out.rows = dense(out, false);
  out.columns = dense(out, true);
  return true;
}

bool number(PyObject* x, double below, double& out) {
  if (!PyFloat_CheckExact(x)) return false;
  out = PyFloat_AsDouble(x);
  return out >= 0 && out < below;
}

bool whole_number(PyObject* x, int64_t& out) {
  if (!PyLong_CheckExact(x)) return false;
  out = PyLong_AsLongLong(x);
  if (out == -1 && PyErr_Occurred()) return PyErr_Clear(), false;
  return true;
}

PyObject* make(PyObject* like, const Plain& of, std::initializer_list<int64_t> shape, void*& data,
               bool columns) {
  static PyObject* const name = PyUnicode_InternFromString("new_empty_strided");
  const int64_t leading = of.dims - 2, dims = leading + int64_t(shape.size());
  PyObject *const sizes = PyTuple_New(dims), *const strides = PyTuple_New(dims);
  int64_t next = 1;
  for (int64_t nth = 1; sizes && strides && nth <= dims; ++nth) {
    const int64_t dim = dims - (columns && nth <= 2 ? 3 - nth : nth);
    const int64_t size = dim < leading ? of.sizes[dim] : shape.begin()[dim - leading];
    PyTuple_SetItem(sizes, dim, PyLong_FromLongLong(size));
    PyTuple_SetItem(strides, dim, PyLong_FromLongLong(next));
    next *= size;
  }
  PyObject* made =
      sizes && strides ? PyObject_CallMethodObjArgs(like, name, sizes, strides, nullptr) : nullptr;
  Py_XDECREF(sizes), Py_XDECREF(strides);
  Plain seen;
  if (made && !told(made, seen)) {
    Py_CLEAR(made);
    raise("geokernels: torch made another tensor than it was asked for");
  }
  if (made) {
    data = seen.data;
    in_huge_pages(data, next * int64_t(of.wide ? sizeof(double) : sizeof(float)));
  }
  return made;
}

void raise(const std::string& sentence) {
  const Owned waiting(take_raised());
  if (waiting.get() == Py_None)
    PyErr_SetString(PyExc_RuntimeError, sentence.c_str());
  else
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(waiting.get())), waiting.get());
}

bool is_wanted(Arguments tensors, int64_t count) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  bool required = false;
  for (int64_t i = 0; i < count && !required; ++i) {
    const Owned answer(PyObject_GetAttr(tensors[i], name));
    required = answer.get() == Py_True;
  }
  PyErr_Clear();
  return required && gradients_have_gradients();
}

bool gradients_have_gradients() {
  const int on = ask(grad_mode);
  if (on < 0) PyErr_Clear();
  return on != 0;
}

// torch.Tensor, torch.nn.Parameter, the exchange of tensors; then the listeners, the module of forward mode,
// and what tells whether gradients are wanted
PyObject* use_exchange(PyObject*, Arguments given, Py_ssize_t count) {
  if (count == 6 && PyTuple_CheckExact(given[3])) {
    tensor_type = Py_NewRef(given[0]);
    parameter_type = Py_NewRef(given[1]);
    const void* pointer = PyCapsule_GetPointer(given[2], "dlpack_exchange_api");
    const auto* functions = static_cast<const exchange::Functions*>(pointer);
    if (!functions)
      PyErr_Clear();
    else if (functions->header.major == exchange::kMajor)
      tell = functions->tell;
    listeners = Py_NewRef(given[3]);
    forward_mode = Py_NewRef(given[4]);
    grad_mode = Py_NewRef(given[5]);
  }
  Py_RETURN_NONE;
}

// Nothing -> whether the dispatcher may be passed by
PyObject* nobody_listens(PyObject*, Arguments, Py_ssize_t) {
  static PyObject* const name = PyUnicode_InternFromString("_current_level");
  if (!listeners) Py_RETURN_FALSE;
  for (Py_ssize_t i = 0; i < PyTuple_Size(listeners); ++i) {
    const int answer = ask(PyTuple_GetItem(listeners, i));
    if (answer < 0) return nullptr;
    if (answer) Py_RETURN_FALSE;
  }
  // levels count from 0
  const Owned level(PyObject_GetAttr(forward_mode, name));
  if (!level) return nullptr;
  return PyBool_FromLong(PyLong_AsLong(level.get()) < 0);
}

}  // namespace geokernels
