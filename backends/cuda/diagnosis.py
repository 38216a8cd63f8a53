"""The checks whether a CUDA device can be used: package, driver, device, kernel and product."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends.diagnosis import Diagnosis, RungError, climb

Load = Callable[[], Any]
"""A function that imports CuPy, or a module that stands in for it."""

INSTALL = (
    'Install it with pip install "gpunn[cuda13]" (driver 580 or newer) '
    'or pip install "gpunn[cuda12]" (driver 525 or newer); never both'
)


PROBE = """extern "C" __global__ void gpunn_probe(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x] + 1;
}"""


def climb_ladder(load: Load, package: Callable[[], str]) -> Diagnosis:
    """Run the checks in order and stop at the first that fails.

    Args:
        load: imports CuPy.
        package: the first check: `check_package`, or that of a stand-in.
    """
    checks = {
        "driver": _check_driver,
        "device": _check_device,
        "compile": _check_compile,
        "matmul": _check_matmul,
    }
    above = ((name, partial(check, load)) for name, check in checks.items())
    return climb((("package", package), *above))


def check_package(load: Load) -> str:
    """Check that CuPy can be imported, and return its version.

    Raises:
        RungError: CuPy is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("cupy") is None:
        raise RungError("CuPy is not installed", INSTALL)
    try:
        return f"CuPy {load().__version__}"
    except Exception as error:
        detail = f"CuPy is installed but does not import ({type(error).__name__}: {error})"
        remedy = f"Uninstall every cupy package (pip list shows them). {INSTALL}"
        raise RungError(detail, remedy) from error


def _check_driver(load: Load) -> str:
    version = load().cuda.runtime.driverGetVersion()  # 0 if there is no driver
    if not version:
        raise RungError("there is no NVIDIA driver", "Install NVIDIA's driver for this GPU")
    return f"driver for CUDA {version // 1000}.{version % 1000 // 10}"


def _check_device(load: Load) -> str:
    runtime = load().cuda.runtime
    mend = "Check nvidia-smi, CUDA_VISIBLE_DEVICES, and that the driver is new enough"
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        raise RungError(f"no CUDA device answers ({error})", mend) from error
    if not count:
        raise RungError("there is no CUDA device", mend)
    name = runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, {count} CUDA device{'' if count == 1 else 's'}"


def _check_compile(load: Load) -> str:
    cupy = load()
    try:
        x, y = cupy.zeros(2, cupy.float32), cupy.zeros(2, cupy.float32)
        cupy.RawKernel(PROBE, "gpunn_probe")((1,), (2,), (x, y))
        found = cupy.asnumpy(y).tolist()
    except Exception as error:
        detail = f"a kernel cannot be compiled or run ({type(error).__name__}: {error})"
        raise RungError(detail, f"The [ctk] parts of CuPy are missing. {INSTALL}") from error
    if found != [1.0, 1.0]:
        raise RungError(f"a probe kernel gave {found} for [1.0, 1.0]", "Reinstall the driver")
    return "a probe kernel compiles and is right"


def _check_matmul(load: Load) -> str:
    cupy = load()
    try:
        eye = cupy.asarray(np.eye(2, dtype=np.float32))
        cupy.asnumpy(cupy.matmul(eye, eye))
    except Exception as error:
        detail = f"a matrix product fails ({type(error).__name__}: {error})"
        raise RungError(detail, f"cuBLAS is missing. {INSTALL}") from error
    return _check_device(load)
