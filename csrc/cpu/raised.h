// The exception that a handler of a signal raised in the middle of a call.

#pragma once

#include <pybind11/pybind11.h>

namespace geokernels {

// None if there is none; the caller takes it over.
pybind11::object take_raised();

}  // namespace geokernels
