// Python by its stable ABI, that of 3.11: one library serves it and all later versions. A free-threaded
// Python has none, and gets a library of its own.

#pragma once

#include <pyconfig.h>

// whoever builds this for the Hub of kernels asks for an older one, which lacks fast calls
#undef Py_LIMITED_API
#if !defined(Py_GIL_DISABLED)
#define Py_LIMITED_API 0x030b0000
#endif

#include <Python.h>
