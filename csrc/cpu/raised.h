// The exception that a handler of a signal raised in the middle of a call.

#pragma once

#include "host/python.h"

namespace geokernels {

// None if there is none; the caller takes it over.
PyObject* take_raised();

}  // namespace geokernels
