"""Everything that only a machine with a GPU can show, in one command and one JSON file.

    python -m benchmarks.gpu

Runs the GPU tests (a skip is a failure), holds training on the GPU against the CPU and graphs
against single launches, and times kernels, steps and an epoch, beside PyTorch and JAX where they
are installed. A part that fails is recorded with its reason and does not stop the others.
`--device cpu --quick` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import gpunn as gn
from gpunn.benchmarks.gpu.command import run
from gpunn.benchmarks.gpu.parity import capture, parity, sanitizer
from gpunn.benchmarks.gpu.steps import epoch, steps
from gpunn.benchmarks.kernels import bandwidths
from gpunn.benchmarks.machine import versions

RESULTS = Path(__file__).resolve().parents[1] / "results"


def run_tests(device: str, quick: bool) -> dict[str, Any]:
    """The GPU tests, none of them skipped."""
    options = ["--collect-only"] if quick else ["-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-v", "-k", "cuda:0", "--require-gpu", *options]
    returncode, lines = run([*command, "tests"], timeout_s=240)
    failed = [line for line in lines if " FAILED" in line or line.startswith(("FAILED", "ERROR"))]
    return {"returncode": returncode, "summary": lines[-1:], "failed": failed[-40:]}


PARTS = {
    "tests": run_tests,
    "parity": parity,
    "capture": capture,
    "epoch": epoch,
    "kernels": bandwidths,
    "steps": steps,
    "sanitizer": sanitizer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--output", type=Path, help="JSON file; by default under results/")
    options = parser.parse_args()
    name = gn.backend(options.device).describe()
    print(f"{options.device}: {name}", flush=True)
    record: dict[str, Any] = {"device": name, "versions": versions(), "quick": options.quick}
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    path = options.output or RESULTS / f"{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        start = time.perf_counter()
        try:
            record[part] = PARTS[part](options.device, options.quick)
        except Exception:
            record[part] = {"failed": traceback.format_exc()}
        seconds = time.perf_counter() - start
        print(f"\n== {part} ({seconds:.1f} s)\n{json.dumps(record[part], indent=1)}", flush=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
