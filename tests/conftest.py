"""Fixtures for the whole suite: devices, a random generator, and what was skipped on a GPU."""

from __future__ import annotations

import os

os.environ.setdefault("GPUNN_COMPILED", "0")  # the NumPy bodies, unless one asks for the others

import numpy as np
import pytest

import gpunn
from gpunn.backends.cpu.compiled import Native, find_compiler
from tests.standin.backend import register

register()

DEVICES = ("cpu", "standin:0", "cuda:0")


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu", action="store_true", help="a GPU test that cannot run is a failure"
    )


def _need(request, name):
    """Skip with the reason, or fail with it under --require-gpu, where a device is unusable."""
    diagnosis = gpunn.diagnose(name.partition(":")[0])
    if diagnosis.usable:
        return
    reason = f"{name}: {diagnosis.reason}"
    if request.config.getoption("--require-gpu"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """What compiles kernels for the CPU, into a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUNN_COMPILED", "auto")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        found = find_compiler.__wrapped__()
        if not found.command:
            pytest.skip(found.why)
        yield Native(found)


@pytest.fixture(params=DEVICES)
def device(request):
    """Each device in turn: the CPU, the stand-in that runs CUDA bodies on the CPU, the GPU."""
    _need(request, request.param)
    return request.param


@pytest.fixture(params=DEVICES[1:])
def cuda_device(request):
    """The devices that run CUDA bodies."""
    _need(request, request.param)
    return request.param


@pytest.fixture
def gpu(request):
    """The real GPU."""
    _need(request, "cuda:0")
    return "cuda:0"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_terminal_summary(terminalreporter):
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", ())
        if "cuda:0" in str(report.longrepr)
    ]
    if skipped:
        reason = str(skipped[0].longrepr[2]).removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(skipped)} GPU tests skipped ({reason})", yellow=True)
