#!/usr/bin/env bash
# Builds the C++ so that faults of memory show, and runs the tests of the kernels on that build:
#
#   scripts/sanitize.sh address [pytest arguments]    memory, and undefined behaviour
#   scripts/sanitize.sh thread  [pytest arguments]    races, on two threads
#   scripts/sanitize.sh poison  [pytest arguments]    what nothing was written to: NaN in this build, and other bits in
#                                                     a run of the build that is installed
#
# The build lies in build/sanitize-<kind>: a tree of links to the package, with a compiled library of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
shift
python=${PYTHON:-.venv/bin/python}
build=$PWD/build/sanitize-$kind

poison=ON
case $kind in
address) flags=address,undefined libraries="libasan.so libubsan.so libstdc++.so.6" ;;
thread) flags=thread libraries="libtsan.so libstdc++.so.6" poison=OFF ;;
poison) flags="" libraries="" ;;
*) echo "the kind of build must be address, thread or poison, got $kind" >&2 && exit 2 ;;
esac

cmake -S . -B "$build/cmake" -DPython_EXECUTABLE="$(realpath -s "$python")" -DGEOKERNELS_SANITIZE="$flags" \
    -DGEOKERNELS_POISON=$poison >/dev/null
cmake --build "$build/cmake" --parallel "${MAX_JOBS:-$(nproc)}"
rm -rf "$build/package"
mkdir "$build/package"
cp -rs "$PWD/geokernels" "$build/package"
rm -f "$build"/package/geokernels/kernels/*.so
cp "$build"/cmake/_C*.so "$build/package/geokernels/kernels/"

# left out: libraries that their tests build themselves, tracing and torch.compile, which run no more of the C++ and are
# very slow here, a measurement of memory, which is the sanitizer's own, and what is Python: the Triton kernels, the
# ways round private names, early stops and what finds out which kernels of a GPU are right
left_out="not compil and not opcheck and not registered and not without_graph_breaks and not memory_does_not_grow"
suite() {
  "$python" -m pytest tests/kernels --ignore tests/kernels/test_exponential.py \
      --ignore tests/kernels/test_torch_internals.py --ignore tests/kernels/test_early_stop.py \
      --ignore tests/kernels/test_refused_gpus.py --ignore-glob 'tests/kernels/test_proof*.py' \
      --ignore-glob 'tests/kernels/test_triton_*.py' --ignore-glob 'tests/kernels/test_cuda_*.py' "$@"
}

# calls by chance, and checksums of all bits of what they return
calls() {
  "$python" tests/kernels/fuzz_operators.py 1 0 1000 2>/dev/null >"$build/$1"
}
compare() {
  cmp "$build/plain" "$build/$1" || { echo "results depend on what was in memory before: $1" >&2 && exit 1; }
}

if [ "$kind" = poison ]; then
  left_out+=" and not signals and not fuzz and not shared_formulas and not forward_mode"
  export GEOKERNELS_TRANSPORT_CASES=150  # of as many as take a minute
  export OMP_WAIT_POLICY=passive
  set -- -n "${PROCESSES:-2}" --dist loadfile "$@"
  calls plain
  # memory holds the bits that 1 lacks: huge numbers, where NaN might be passed over; zeros are what new memory has
  MALLOC_PERTURB_=1 suite -q -k "$left_out" "$@"
  MALLOC_PERTURB_=1 calls perturbed
  compare perturbed
  export PYTHONPATH=$build/package
  PYTHONSAFEPATH=1 suite -q -k "$left_out" "$@"
  calls poisoned
  compare poisoned
  exit
fi

# the runtime must come before everything else in a python that was built without it
preload=
for library in $libraries; do preload+="$(${CXX:-c++} -print-file-name="$library") "; done
export PYTHONPATH=$build/package PYTHONSAFEPATH=1 PYTHONMALLOC=malloc OMP_NUM_THREADS=2
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1"
export GEOKERNELS_FUZZ_CALLS=10000
LD_PRELOAD=$preload suite -k "$left_out" "$@"
