// Entropic transport past the dispatcher.

#pragma once

#include "cpu/direct.h"

namespace geokernels {

PyObject* direct_sinkhorn(PyObject*, Arguments given, Py_ssize_t count);

}  // namespace geokernels
