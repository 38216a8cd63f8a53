"""What tests of the lectures count with."""

import pytest

import gpunn as gn
from tests.standin.backend import standin_cupy


@pytest.fixture
def launches():
    """A context that counts launches on the stand-in; skipped where it cannot run."""
    diagnosis = gn.diagnose("standin")
    if not diagnosis.usable:
        pytest.skip(f"standin:0: {diagnosis.reason}")
    return lambda: standin_cupy().counters.count()
