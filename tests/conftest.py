"""Fixtures for the whole suite: devices, a random generator, and what was skipped on a GPU.

The suite runs the kernels that users run: compiled ones where there is a C++ compiler. Tests with
the mark `both_bodies` run a second time through NumPy alone on the CPU.
"""

from __future__ import annotations

import os

# The products of tests are small. On a busy machine two threads that wait for each other take up
# to 40 times as long. BLAS reads this when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

import gpunn
from gpunn.backends.cpu.compiled import Native, find_compiler
from tests.browser import chromium as chromium
from tests.browser import tab as tab
from tests.standin.backend import register
from tests.standin.compiler import ARITHMETIC, arithmetic
from tests.standin.streams import order

register()
hypothesis.settings.register_profile("gpunn", deadline=None)  # no test depends on a clock
hypothesis.settings.load_profile("gpunn")

DEVICES = ("cpu", "standin:0", "cuda:0")
NUMPY_ALONE = "numpy"
BODIES = ("compiled", NUMPY_ALONE) if find_compiler().command else (NUMPY_ALONE,)


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu", action="store_true", help="a GPU test that cannot run is a failure"
    )
    parser.addoption(
        "--standin-arithmetic",
        default="exact",
        choices=list(ARITHMETIC),
        help="the arithmetic of kernels on the stand-in: with fused multiply-add (fma), with small "
        "numbers flushed to zero (ftz), or both (card)",
    )
    parser.addoption(
        "--standin-order",
        help="the stand-in does what no event orders as late as possible (late), or in the random "
        "order of a seed (a number)",
    )


def pytest_configure(config):
    """Let the stand-in compute or order its work as the options say."""
    chosen = arithmetic(config.getoption("--standin-arithmetic"))
    chosen.__enter__()
    config.add_cleanup(lambda: chosen.__exit__(None, None, None))
    how = config.getoption("--standin-order")
    if how is not None:
        disorder = order("late" if how == "late" else int(how))
        disorder.__enter__()
        config.add_cleanup(lambda: disorder.__exit__(None, None, None))


def pytest_ignore_collect(collection_path, config):
    """With `-m fast`, do not even import the files that have no fast test."""
    if config.option.markexpr == "fast" and collection_path.suffix == ".py":
        return True if "mark.fast" not in collection_path.read_text(encoding="utf-8") else None
    return None


def pytest_generate_tests(metafunc):
    """Run a test with the mark `both_bodies` through each kind of bodies that the CPU has."""
    elsewhere = {"cuda_device", "gpu", "native"} & {*metafunc.fixturenames}
    if metafunc.definition.get_closest_marker("both_bodies") and not elsewhere:
        metafunc.parametrize("bodies", BODIES, indirect=True)


def pytest_collection_modifyitems(config, items):
    """Leave out NumPy alone on other devices than the CPU; with `-m fast`, those devices."""

    def wanted(item):
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get("device", "cpu") == "cpu" and "cuda_device" not in params:
            return True
        alone = params.get("bodies", BODIES[0]) != BODIES[0]
        return not alone and config.option.markexpr != "fast"

    items[:] = filter(wanted, items)


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
def native():
    """What compiles kernels for the CPU, and keeps them in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUNN_COMPILED", "auto")
        found = find_compiler.__wrapped__()
        if not found.command:
            pytest.skip(found.why)
        yield Native(found)


@pytest.fixture(params=DEVICES)
def device(request):
    """Each device in turn: the CPU, the stand-in that runs CUDA bodies on the CPU, the GPU."""
    _need(request, request.param)
    return request.param


@pytest.fixture(autouse=True)
def bodies(request):
    """The bodies that run on the CPU, where a test has the mark `both_bodies`."""
    if getattr(request, "param", None) != NUMPY_ALONE:
        yield
        return
    with gpunn.backend("cpu").numpy_alone():
        yield


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
