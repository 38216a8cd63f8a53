"""Describe the machine and the installed packages, on which all figures depend."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import gpunn as gn
from gpunn.backends.cpu.compiled import find_compiler
from gpunn.backends.cpu.processor import processor_lines
from gpunn.benchmarks.settings import Settings

PACKAGES = (
    *("numpy", "scipy", "torch", "jax", "scikit-learn", "cupy", "cupy-cuda12x", "cupy-cuda13x"),
    "nvidia-cublas",
)


def versions() -> dict[str, str]:
    """Return the versions of the installed packages."""
    found = {"python": platform.python_version(), "gpunn": gn.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS")
"""The environment variables that decide which kernels a BLAS uses."""


def machine(settings: Settings) -> dict[str, Any]:
    """Describe the processor, the kernels that BLAS chose for it, and the reason."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "blas": _blas(),
        "coretype": settings.coretype or "as the environment says",
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "compiler": find_compiler().why,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of other processes
    }


def _processor() -> str:
    names = processor_lines("model name")
    return names[0].partition(": ")[2] if names else platform.processor()


def _blas() -> str:
    """Name NumPy's BLAS and the processor that it computes for, as far as is known."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown: threadpoolctl is not installed"
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(
        f"{p['internal_api']} {p['version']} for {p.get('architecture', '?')}" for p in pools
    )
