"""The time of `import gpunn` in a fresh interpreter against that of `import numpy` alone.

    python -m benchmarks.import_time

The two are timed in turn, each in an interpreter of its own, less the time of an interpreter that
imports nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    """Wall seconds of an interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    codes = ("pass", "import numpy", "import gpunn")
    for code in codes:
        seconds(code)  # byte code is written, files are in the cache
    rounds = [[seconds(code) for code in codes] for _ in range(15)]
    ratios = [(gpunn - nothing) / (numpy - nothing) for nothing, numpy, gpunn in rounds]
    for code, column in zip(codes, zip(*rounds, strict=True), strict=True):
        print(f"{code:14}{1e3 * statistics.median(column):8.1f} ms")
    print(f"import gpunn / import numpy, median of 15: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
