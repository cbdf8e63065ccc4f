#!/bin/sh
# Gives a wheel the tag of the oldest Linux that its libraries run on, and fails where there is none, or where they
# are not for all versions of Python: repair_wheel.sh WHEEL FOLDER
#
# Left outside are torch's libraries and CUDA's, which torch brings and Python loads before ours.
set -eu
auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' --exclude 'libcudart.so.*' --wheel-dir "$2" "$1"
abi3audit --strict --verbose "$2"/"$(basename "$1" | cut -d- -f1-4)"-*.whl
