// The table of contents of the native library: every operator, one schema each.
// Implementations list themselves in csrc/cpu and csrc/cuda; nothing is computed here.

#include "host/operators.h"

GEOKERNELS_SCHEMAS(m) {
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
