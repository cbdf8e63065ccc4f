"""Compiled implementations and the choice between them. Private: call :mod:`geokernels.ops`."""
