"""Run one level of the suite in a fresh interpreter, because NumPy reads the threads at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from gpunn.backends.cpu import blas
from gpunn.benchmarks.settings import Settings

LEVELS = {
    "steps": "whole training steps on one and two threads, and their matrix products alone",
    "engine": "microseconds for each node of a graph, forward and backward",
    "kernels": "GB/s of elementwise and row kernels, compared with a copy",
    "scaling": "step time against width and depth",
    "fit": "seconds to 97.5 % on MNIST",
    "footprint": "import time and installed size",
    "service": "growth of memory and time over 100,000 predictions of batches of random sizes",
}
"""The levels. Each is a function in a module of the same name."""


def measure(level: str, settings: Settings) -> Any:
    """Return the result of a level (or of "machine"), or the reason of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        arguments = [level, json.dumps(asdict(settings)), str(path)]
        command = [sys.executable, "-m", __name__, *arguments]
        done = subprocess.run(command, env=environment(settings), check=False)
        if done.returncode:
            return {"failed": f"exit status {done.returncode}"}
        return json.loads(path.read_text(encoding="utf-8"))


def environment(settings: Settings) -> dict[str, str]:
    """Return an environment that sets the threads, and the processor for OpenBLAS, as asked."""
    found = os.environ | threads_of(settings.threads)
    if settings.coretype:
        found[blas.VARIABLE] = settings.coretype
    if settings.coretype == "auto":
        del found[blas.VARIABLE]
    return found


def threads_of(count: int) -> dict[str, str]:
    """Return the variables that make BLAS, PyTorch and XLA use a number of threads."""
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NPROC")
    eigen = "true" if count > 1 else "false"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={eigen}"
    return dict.fromkeys(names, str(count)) | {"XLA_FLAGS": flags.strip()}


def main() -> None:
    """Measure the level (or the machine) that the command line names, and write the result."""
    level, settings, path = sys.argv[1:]
    work: Callable[[Settings], Any] = getattr(import_module(f"gpunn.benchmarks.{level}"), level)
    found = work(Settings.of(json.loads(settings)))
    Path(path).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
