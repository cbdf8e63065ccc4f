// The table of contents of the native library: every operator, one schema each.
// Implementations register themselves from csrc/cpu and csrc/cuda; nothing is computed here.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/library.h>

#include "cpu/assignment.h"
#include "cpu/direct_transport.h"
#include "cpu/finite.h"
#include "cpu/level.h"
#include "cpu/raised.h"
#include "cpu/stored.h"

STABLE_TORCH_LIBRARY(geokernels, m) {
  m.def("subspace_basis(Tensor x, int rank, float rtol) -> (Tensor left, Tensor directions, Tensor values)");
  m.def(
      "subspace_basis_backward(Tensor grad_directions, Tensor? grad_values, Tensor left, Tensor directions, "
      "Tensor values, int rank) -> Tensor grad_x");
  m.def("principal_angles(Tensor p, Tensor q) -> Tensor");
  m.def(
      "geodesic_cosine(Tensor x, Tensor y, Tensor p, Tensor q, float eps) -> (Tensor cosine, Tensor left, "
      "Tensor right, Tensor g, Tensor coordinates)");
  m.def(
      "geodesic_cosine_backward(Tensor grad, Tensor x, Tensor y, Tensor p, Tensor q, Tensor left, "
      "Tensor right, Tensor g, Tensor coordinates, float eps, bool to_x, bool to_y, bool to_p, bool to_q) "
      "-> (Tensor grad_x, Tensor grad_y, Tensor grad_p, Tensor grad_q)");
  m.def(
      "geodesic_loss(Tensor current, Tensor? source, Tensor other, Tensor? other_source, Tensor? q, int "
      "rank, "
      "int other_rank, float shortest, float eps, bool follow, bool with_gradient) "
      "-> (Tensor loss, Tensor gradient)");
  m.def(
      "sinkhorn(Tensor cost, Tensor? a, Tensor? b, Tensor? n, Tensor? m, Tensor? start, float eps, "
      "float reach, int max_iter, float tol) "
      "-> (Tensor value, Tensor f, Tensor g, Tensor error, Tensor iterations)");
  m.def(
      "sinkhorn_points(Tensor x, Tensor y, Tensor? a, Tensor? b, Tensor? n, Tensor? m, Tensor? start, int "
      "cost, "
      "float eps, float reach, int max_iter, float tol) "
      "-> (Tensor costs, Tensor value, Tensor f, Tensor g, Tensor error, Tensor iterations)");
  // the same where the kernel, of the GPU only, also multiplies the plan by columns v
  m.def(
      "sinkhorn_carry(Tensor cost, Tensor v, Tensor? a, Tensor? b, Tensor? n, Tensor? m, Tensor? start, "
      "float eps, float reach, int max_iter, float tol) "
      "-> (Tensor value, Tensor f, Tensor g, Tensor error, Tensor iterations, Tensor carried)");
  m.def(
      "sinkhorn_points_carry(Tensor x, Tensor y, Tensor v, Tensor? a, Tensor? b, Tensor? n, Tensor? m, "
      "Tensor? start, int cost, float eps, float reach, int max_iter, float tol) -> (Tensor costs, "
      "Tensor value, Tensor f, Tensor g, Tensor error, Tensor iterations, Tensor carried)");
  m.def(
      "sinkhorn_clouds(Tensor x, Tensor y, Tensor? a, Tensor? b, Tensor? n, Tensor? m, Tensor? start, int "
      "cost, "
      "float p, float reach, float hot, float cooling, int max_iter, float tol) "
      "-> (Tensor value, Tensor f, Tensor g, Tensor error, Tensor iterations)");
  m.def(
      "multiply_clouds(Tensor x, Tensor y, Tensor f, Tensor g, Tensor? left, Tensor? right, Tensor v, int "
      "cost, "
      "float p) -> Tensor");
  m.def(
      "differentiate_clouds(Tensor x, Tensor y, Tensor f, Tensor g, Tensor left, Tensor right, int cost, "
      "float p) -> Tensor");
  m.def("point_gradient(Tensor weight, Tensor x, Tensor y, int cost) -> Tensor");
  m.def("transport_density(Tensor cost, Tensor f, Tensor g, float eps) -> Tensor");
  m.def("assignment(Tensor cost) -> Tensor");
  m.def(
      "exact_transport(Tensor cost, Tensor? a, Tensor? b) -> (Tensor value, Tensor f, Tensor g, Tensor rows, "
      "Tensor columns, Tensor mass, Tensor ending)");
  m.def("displacement(Tensor x, Tensor y, Tensor times) -> (Tensor moved, Tensor chosen)");
}

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["torch"] = GEOKERNELS_TORCH_BUILT;
  info["compiler"] = compiler();
  info["simd_levels"] = geokernels::available_levels();
  info["simd"] = geokernels::level_name(geokernels::level());
  info["cuda_archs"] = GEOKERNELS_CUDA_ARCHS;
  return info;
}

// As Python calls its own functions: what pybind11 puts around a call takes as long as all the rest.
PyMethodDef as_direct(const char* name, PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL,
          nullptr};
}

PyMethodDef direct_calls[] = {as_direct("use_exchange", geokernels::use_exchange),
                              as_direct("nobody_listens", geokernels::nobody_listens),
                              as_direct("basis", geokernels::direct_basis),
                              as_direct("basis_backward", geokernels::direct_basis_backward),
                              as_direct("cosine", geokernels::direct_cosine),
                              as_direct("cosine_backward", geokernels::direct_cosine_backward),
                              as_direct("sinkhorn", geokernels::direct_sinkhorn),
                              {nullptr, nullptr, 0, nullptr}};

}  // namespace

// Importing geokernels.kernels._C loads this shared object, which runs the registrations above.
PYBIND11_MODULE(_C, module) {
  module.doc() = "CPU kernels of geokernels, registered as torch.ops.geokernels.*";
  module.def("build_info", &build_info, "How this library was built, and the SIMD level in force.");
  module.def("all_finite", &geokernels::all_finite, "Whether numbers at an address are finite.");
  module.def("assign", &geokernels::assign_directly, pybind11::call_guard<pybind11::gil_scoped_release>(),
             "The operator assignment on numbers at an address; whether all went well.");
  module.def("is_solved", &geokernels::is_solved,
             "Whether what transport found is finite, and no error above the tolerance.");
  module.def("take_raised", &geokernels::take_raised,
             "The exception of a signal's handler that ended a call, or None; it is handed over.");
  module.def("set_most_stored", &geokernels::set_most_stored,
             "How many bytes Sinkhorn's kernel matrices may take at once.");
  module.def("most_stored", &geokernels::most_stored, "The same as it is.");
  PyModule_AddFunctions(module.ptr(), direct_calls);
  module.def("set_simd_level", &geokernels::set_level, "Insist on one of build_info()['simd_levels'].");
}
