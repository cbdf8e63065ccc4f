#!/usr/bin/env bash
# Proves the GPU's kernels on a machine that has one; see checklist.py, which this starts.
#
#   benchmarks/gpu/checklist.sh [--dry-run] [--wheels FOLDER] [--earlier FOLDER] [--minutes 10] [STAGE ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" -m benchmarks.gpu.checklist "$@"
