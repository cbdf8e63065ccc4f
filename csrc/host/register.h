// What registers operators, for the one file of a library that does; never inline, as two copies of a library
// in one process must not share the list.

#pragma once

#include <string>

#include "host/operators.h"

namespace geokernels {

const Operators* Operators::first = nullptr;

bool register_operators(const char* name) {
  using torch::stable::detail::StableTorchLibraryInit;
  // what is registered stays until the process ends
  static const std::string* registered = nullptr;
  if (registered) return *registered == name;
  registered = new std::string(name);
  for (const Operators* some = Operators::first; some; some = some->next) {
    const auto kind = some->key ? Operators::Library::Kind::IMPL : Operators::Library::Kind::DEF;
    new StableTorchLibraryInit(kind, some->list, registered->c_str(), some->key, __FILE__, __LINE__);
  }
  return true;
}

}  // namespace geokernels
