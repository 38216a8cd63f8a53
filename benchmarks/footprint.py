"""Measure the cost of gpunn before it does anything: the time of its import and its size on disk.

An import is timed in fresh interpreters, in turn with the imports of NumPy and of other libraries.
The time of an interpreter that imports nothing is subtracted.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import gpunn as gn
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.timing import in_turn

MODULES = {"numpy": "numpy", "gpunn": "gpunn", "torch": "torch", "jax": "jax"}
MODULES |= {"sklearn.neural_network": "scikit-learn"}
"""The modules to import, each with its distribution."""


def footprint(settings: Settings) -> dict[str, Any]:
    """Measure imports in milliseconds and packages in megabytes, without their dependencies."""
    there = [m for m in MODULES if importlib.util.find_spec(m.partition(".")[0])]
    codes = {module: f"import {module}" for module in there}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    works = {
        name: lambda code=code: subprocess.run([sys.executable, "-c", code], check=True, env=env)
        for name, code in {"nothing": "pass", **codes}.items()
    }
    for work in works.values():
        work()  # writes byte code and fills the file cache
    times = in_turn(works, 2 if settings.quick else 9)
    nothing = times.pop("nothing")
    found: dict[str, Any] = {}
    for module, values in times.items():
        net = [value - idle for value, idle in zip(values, nothing, strict=True)]
        numpy = [value - idle for value, idle in zip(times["numpy"], nothing, strict=True)]
        found[module] = {
            "import_ms": 1e3 * statistics.median(net),
            "times_numpy": statistics.median(a / b for a, b in zip(net, numpy, strict=True)),
            "size_mb": _size_bytes(module) / 1e6,
        }
    return found


def _size_bytes(module: str) -> int:
    """Return the size in bytes of a distribution's files; for gpunn, of its own modules."""
    if module == "gpunn":
        here = Path(gn.__file__).parent
        folders = [here, *(part for part in here.iterdir() if part.is_symlink())]
        files = [f for folder in folders for f in folder.resolve().rglob("*")]
        return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc")
    listed = metadata.files(MODULES[module]) or ()
    paths = [Path(str(f.locate())) for f in listed if f.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())
