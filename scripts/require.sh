#!/bin/sh
# Says in one sentence what this machine lacks to build geokernels: require.sh PYTHON
python=$1
if ! command -v "$python" >/dev/null 2>&1; then
  echo "geokernels needs Python >= 3.11, but there is no '$python'; name another with make PYTHON=..." >&2
  exit 1
fi
version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null)
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "geokernels needs Python >= 3.11, but '$python' is ${version:-not a Python that runs}; name another with make PYTHON=..." >&2
  exit 1
fi
if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
  echo "geokernels needs Python's venv module, which '$python' lacks; on Debian install python3-venv" >&2
  exit 1
fi
if ! "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'; then
  echo "geokernels needs Python's headers, which '$python' lacks; on Debian install python3-dev" >&2
  exit 1
fi
if ! command -v "${CXX:-c++}" >/dev/null 2>&1; then
  echo "geokernels needs a C++17 compiler, but there is no '${CXX:-c++}'; install g++ or name another in CXX" >&2
  exit 1
fi
