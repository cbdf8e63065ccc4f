// The Python module: importing geokernels.kernels._C loads the library and registers its operators. Beside
// them it has functions that Python calls by the shortest way.

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cpu/assignment.h"
#include "cpu/direct_transport.h"
#include "cpu/finite.h"
#include "cpu/level.h"
#include "cpu/raised.h"
#include "cpu/stored.h"
#include "host/register.h"

// kernel-builder, which makes kernels for the Hub, defines neither
#if !defined(GEOKERNELS_TORCH_BUILT)
#include <torch/headeronly/version.h>
#define GEOKERNELS_TORCH_BUILT TORCH_VERSION
#define GEOKERNELS_CUDA_ARCHS ""
#endif

namespace geokernels {
namespace {

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

PyObject* build_info(PyObject*, Arguments, Py_ssize_t) {
  Owned levels(PyList_New(0));
  for (const std::string& level : available_levels()) {
    const Owned name(PyUnicode_FromString(level.c_str()));
    if (!levels || !name || PyList_Append(levels.get(), name.get()) != 0) return nullptr;
  }
  return Py_BuildValue("{ss,ss,sN,ss,ss}", "torch", GEOKERNELS_TORCH_BUILT, "compiler", compiler(),
                       "simd_levels", levels.release(), "simd", level_name(level()).c_str(), "cuda_archs",
                       GEOKERNELS_CUDA_ARCHS);
}

PyObject* set_simd_level(PyObject*, Arguments given, Py_ssize_t count) {
  Owned name(count == 1 ? PyUnicode_AsUTF8String(given[0]) : nullptr);
  if (!name) return PyErr_SetString(PyExc_TypeError, "the SIMD level must be one string"), nullptr;
  try {
    set_level(PyBytes_AsString(name.get()));
  } catch (const std::invalid_argument& error) {
    return PyErr_SetString(PyExc_ValueError, error.what()), nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* raised(PyObject*, Arguments, Py_ssize_t) { return take_raised(); }

template <class T>
T number_of(PyObject* x) {
  if constexpr (std::is_same_v<T, bool>)
    return PyObject_IsTrue(x) == 1;
  else if constexpr (std::is_floating_point_v<T>)
    return PyFloat_AsDouble(x);
  else if constexpr (std::is_unsigned_v<T>)
    return PyLong_AsUnsignedLongLong(x);
  else
    return PyLong_AsLongLong(x);
}

// A function of numbers as Python calls it, without Python's lock if it may take long.
template <auto function, bool kLong = false>
struct OfNumbers;

template <class Result, class... Given, Result (*function)(Given...), bool kLong>
struct OfNumbers<function, kLong> {
  static PyObject* call(PyObject*, Arguments given, Py_ssize_t count) {
    if (count != Py_ssize_t(sizeof...(Given)))
      return PyErr_Format(PyExc_TypeError, "takes %zd numbers, got %zd", sizeof...(Given), count);
    return with(given, std::index_sequence_for<Given...>());
  }

 private:
  template <size_t... kNth>
  static PyObject* with([[maybe_unused]] Arguments given, std::index_sequence<kNth...>) {
    const std::tuple<Given...> numbers{number_of<Given>(given[kNth])...};
    if (PyErr_Occurred()) return nullptr;
    if constexpr (std::is_void_v<Result>) {
      std::apply(function, numbers);
      Py_RETURN_NONE;
    } else {
      Result result{};
      if (!kLong)
        result = std::apply(function, numbers);
      else if (!without_lock([&] { result = std::apply(function, numbers); }))
        return nullptr;
      return std::is_same_v<Result, bool> ? PyBool_FromLong(long(result)) : PyLong_FromLongLong(result);
    }
  }
};

PyMethodDef of(const char* name, PyObject* (*function)(PyObject*, Arguments, Py_ssize_t),
               const char* about = nullptr) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, about};
}

PyMethodDef functions[] = {
    of("build_info", build_info, "How this library was built, and the SIMD level in force."),
    of("set_simd_level", set_simd_level, "Insist on one of build_info()['simd_levels']."),
    of("all_finite", OfNumbers<all_finite>::call, "Whether numbers at an address are finite."),
    of("assign", OfNumbers<assign_directly, true>::call,
       "The operator assignment on numbers at an address; whether all went well."),
    of("is_solved", OfNumbers<is_solved>::call,
       "Whether what transport found is finite, and no error above the tolerance."),
    of("take_raised", raised,
       "The exception of a signal's handler that ended a call, or None; it is handed over."),
    of("set_most_stored", OfNumbers<set_most_stored>::call,
       "How many bytes Sinkhorn's kernel matrices may take at once."),
    of("most_stored", OfNumbers<most_stored>::call, "The same as it is."),
    of("use_exchange", use_exchange),
    of("nobody_listens", nobody_listens),
    of("basis", direct_basis),
    of("basis_backward", direct_basis_backward),
    of("cosine", direct_cosine),
    of("cosine_backward", direct_cosine_backward),
    of("sinkhorn", direct_sinkhorn),
    {nullptr, nullptr, 0, nullptr}};

// The outermost package of the module's full name, which Python gives it before this runs.
int register_in_package(PyObject* module) {
  const Owned full(PyModule_GetNameObject(module));
  const Owned bytes(full ? PyUnicode_AsUTF8String(full.get()) : nullptr);
  if (!bytes) return -1;
  std::string name = PyBytes_AsString(bytes.get());
  name.resize(std::min(name.find('.'), name.size()));
  if (register_operators(name.c_str())) return 0;
  PyErr_Format(PyExc_ImportError, "%U has the operators of another package; import a copy of the file",
               full.get());
  return -1;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(register_in_package)}, {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_C",
                          "CPU kernels of geokernels, and its operators, registered in torch.ops.",
                          0,
                          functions,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace
}  // namespace geokernels

// TORCH_EXTENSION_NAME is the name of the file, as torch's own builds define it too
#define GEOKERNELS_INIT_OF(name) PyInit_##name
#define GEOKERNELS_INIT(name) GEOKERNELS_INIT_OF(name)

PyMODINIT_FUNC GEOKERNELS_INIT(TORCH_EXTENSION_NAME)() { return PyModuleDef_Init(&geokernels::definition); }
