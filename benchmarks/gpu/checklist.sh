#!/usr/bin/env bash
# Proves the GPU's kernels on a machine that has one; see checklist.py, which this starts.
#
#   benchmarks/gpu/checklist.sh [--dry-run] [build|tests|triton|sanitizer|bench ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" benchmarks/gpu/checklist.py "$@"
