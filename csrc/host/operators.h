// How operators come to torch. A file that implements some lists them; when Python imports the library, all
// of them are registered, in the namespace that has the name of the outermost package the library lies in:
// torch.ops.geokernels where geokernels is installed, and in a copy of it elsewhere that copy's name. So two
// versions go together in one process, and neither has to be compiled for it.

#pragma once

#include <torch/csrc/stable/library.h>

namespace geokernels {

// What one file lists, in a chain that grows while the library is loaded.
struct Operators {
  using Library = torch::stable::detail::StableLibrary;
  using List = void (*)(Library&);

  Operators(const char* key, List list) : key(key), list(list), next(first) { first = this; }

  const char* const key;  // of the dispatcher, such as CPU; null for schemas
  const List list;
  const Operators* const next;

  static const Operators* first;  // null before any other object of the library is made
};

// Registers all that this library holds. A second call with the same name does nothing; false for one with
// another.
bool register_operators(const char* name);

}  // namespace geokernels

// GEOKERNELS_OPERATORS(CPU, m) { m.impl("name", TORCH_BOX(&function)); }, once in a file.
#define GEOKERNELS_OPERATORS(key, library)                                      \
  static void list_operators(::geokernels::Operators::Library& library);        \
  static const ::geokernels::Operators listed_operators(#key, &list_operators); \
  static void list_operators(::geokernels::Operators::Library& library)

// GEOKERNELS_SCHEMAS(m) { m.def("name(Tensor x) -> Tensor"); }
#define GEOKERNELS_SCHEMAS(library)                                            \
  static void list_schemas(::geokernels::Operators::Library& library);         \
  static const ::geokernels::Operators listed_schemas(nullptr, &list_schemas); \
  static void list_schemas(::geokernels::Operators::Library& library)
