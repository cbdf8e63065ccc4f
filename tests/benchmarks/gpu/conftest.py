"""The checklist's stubs."""

import pytest

from .stubs import Machine


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)
