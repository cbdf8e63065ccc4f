// What a watch asks of Python. Signals are Python's: it notes them as they come and runs their handlers where
// it is asked to, in the main thread. No handler of ours is installed; those of the user run, in the middle
// of a call, and end it where they raise. The exception waits for geokernels/kernels/native.py.

#include "core/watch.h"

#include <stdexcept>
#include <utility>

#include "cpu/raised.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

namespace geokernels {
namespace {

bool in_main_thread() {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return true;
#endif
}

// Read and written under Python's lock; never freed, as nothing may be once Python has ended.
PyObject* waiting = nullptr;

}  // namespace

bool Watch::raised() {
  // a thread without handlers to run does not wait for Python's lock
  if (!in_main_thread() || !Py_IsInitialized()) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool found = PyErr_CheckSignals() != 0;
  if (found) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type), Py_XDECREF(traceback), Py_XDECREF(waiting);
    waiting = value;
  }
  PyGILState_Release(state);
  return found;
}

void Watch::give_up() {
  throw std::runtime_error("geokernels: a handler of a signal raised an exception, which ended this call");
}

PyObject* take_raised() {
  PyObject* const found = std::exchange(waiting, nullptr);
  return found ? found : Py_NewRef(Py_None);
}

}  // namespace geokernels
