#!/usr/bin/env bash
# Builds the C++ with a sanitizer and runs the tests of the kernels on that build:
#
#   scripts/sanitize.sh address [pytest arguments]    memory, and undefined behaviour
#   scripts/sanitize.sh thread  [pytest arguments]    races, on two threads
#
# The build lies in build/sanitize-<kind>: a tree of links to the package, with a compiled library of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
shift
python=${PYTHON:-.venv/bin/python}
build=$PWD/build/sanitize-$kind

case $kind in
address) flags=address,undefined libraries="libasan.so libubsan.so libstdc++.so.6" ;;
thread) flags=thread libraries="libtsan.so libstdc++.so.6" ;;
*) echo "the sanitizer must be address or thread, got $kind" >&2 && exit 2 ;;
esac

cmake -S . -B "$build/cmake" -DPython_EXECUTABLE="$(realpath -s "$python")" -DGEOKERNELS_SANITIZE="$flags" >/dev/null
cmake --build "$build/cmake" --parallel "${MAX_JOBS:-$(nproc)}"
rm -rf "$build/package"
mkdir "$build/package"
cp -rs "$PWD/geokernels" "$build/package"
rm -f "$build"/package/geokernels/kernels/*.so
cp "$build"/cmake/_C*.so "$build/package/geokernels/kernels/"

# the runtime must come before everything else in a python that was built without it
preload=
for library in $libraries; do preload+="$(${CXX:-c++} -print-file-name="$library") "; done
export PYTHONPATH=$build/package PYTHONSAFEPATH=1 PYTHONMALLOC=malloc OMP_NUM_THREADS=2
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1"
# left out: libraries that their tests build themselves, tracing and torch.compile, which run no more of the C++ and are
# very slow here, a measurement of memory, which is the sanitizer's own, and the Triton kernels, which are Python
LD_PRELOAD=$preload "$python" -m pytest tests/kernels --ignore tests/kernels/test_exponential.py \
    --ignore-glob 'tests/kernels/test_triton_*.py' --ignore-glob 'tests/kernels/test_cuda_*.py' \
    -k "not compil and not opcheck and not registered and not without_graph_breaks and not memory_does_not_grow" "$@"
