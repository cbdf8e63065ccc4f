"""A pytest plugin that runs POT's own tests on ``geokernels.compat.pot``; docs/compat.md has the command.

POT's tests come with its source package, are not part of this repository, and need POT itself for everything
around the functions under test. What we say we do not offer is skipped, with our reason.
"""

import functools

import ot
import ot.backend
import ot.batch
import pytest
import torch

from geokernels.compat import pot
from geokernels.compat.pot_result import OTResult

NAMES = ("sinkhorn", "sinkhorn2", "emd", "emd2", "solve", "solve_sample", "solve_batch")
BACKENDS = [ot.backend.NumpyBackend(), ot.backend.TorchBackend()]


def unless_refused(function):
    """The function; a refusal skips the test, unless the test expects one."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except NotImplementedError as error:
            raise RefusalError(str(error)) from error

    return run


class RefusalError(NotImplementedError):
    """What the compatible functions do not offer."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip the test that a refusal has ended."""
    try:
        return (yield)
    except RefusalError as refusal:
        pytest.skip(f"not offered: {refusal}")


def keep(*args, **kwargs):
    """In place of the marks of POT's conftest, which exclude kinds of arrays that are not run here."""
    return lambda test: test


@pytest.fixture(params=BACKENDS, ids=str)
def nx(request):
    """The kinds of arrays that tests are run on."""
    return request.param


def pytest_configure(config):
    """Put our functions in place of POT's."""
    for name in NAMES:
        ours = unless_refused(getattr(pot, name))
        setattr(ot, name, ours)
        if hasattr(ot.batch, name):
            setattr(ot.batch, name, ours)
    # read by the tests alone, to turn what they compare into arrays
    OTResult._backend = property(lambda self: BACKENDS[isinstance(self.value, torch.Tensor)])
    pytest.skip_backend = pytest.skip_arg = keep
