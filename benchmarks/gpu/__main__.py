"""Run all checks and measurements that need a GPU, by one command and into one JSON file.

    python -m benchmarks.gpu --output gpu.json
    python -m benchmarks.gpu --quick

The most important parts come first: whether gpunn runs, computes the right numbers and captures
steps, and the time of a step. Each part runs in its own process and is stopped when its time is up.
The file is written after every part, and keeps the results of a stopped part. `--quick` runs the
first four parts. The suite needs CuPy and pytest. It uses PyTorch, JAX, pytest-xdist and
compute-sanitizer if they are installed. `--device cpu` and `--device standin` try the suite itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gpunn as gn
from gpunn.benchmarks.gpu.checks import capture, doctor, parity, sanitizer, tests
from gpunn.benchmarks.gpu.command import run
from gpunn.benchmarks.gpu.kernels import kernels
from gpunn.benchmarks.gpu.nodes import nodes
from gpunn.benchmarks.gpu.steps import compiled, epoch, jax, steps

RESULTS = Path(__file__).resolve().parents[1] / "results"

SHOWN = 1500  # characters that are printed of a part; the file has the whole result

Found = Iterator[tuple[str, Any]]


class Part(NamedTuple):
    """One part of the suite.

    Attributes:
        work: a function of the device and of whether to use tiny sizes, which yields names and
            their numbers as soon as it has them.
        limit_s: the seconds after which it is stopped.
    """

    work: Callable[[str, bool], Found]
    limit_s: float


# All limits together are at most 600 s, for which a command has a card.
PARTS = {
    "doctor": Part(doctor, 15),
    "parity": Part(parity, 20),
    "capture": Part(capture, 25),
    "steps": Part(steps, 100),
    "epoch": Part(epoch, 15),
    "tests": Part(tests, 150),
    "nodes": Part(nodes, 35),
    "kernels": Part(kernels, 25),
    "jax": Part(jax, 50),
    "compiled": Part(compiled, 120),
    "sanitizer": Part(sanitizer, 30),
}
QUICK = ("doctor", "parity", "capture", "steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="the first four parts only")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the suite itself")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS))
    parser.add_argument("--output", type=Path, help="JSON file; by default under results/")
    parser.add_argument("--inside", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device.startswith("standin"):
        import_module("tests.standin.backend").register()
    diagnosis = gn.diagnose(options.device.partition(":")[0])
    if not diagnosis.usable:
        print(f"{options.device} cannot be used: {diagnosis.reason}. {diagnosis.remedy}")
        sys.exit(1)
    if options.inside:
        inside(options.inside, options.device, options.tiny, options.output)
        return
    name = gn.backend(options.device).describe()
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    path = options.output or RESULTS / f"{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"device": name, "tiny": options.tiny}
    print(f"{options.device}: {name}", flush=True)
    for part in options.parts or (QUICK if options.quick else PARTS):
        record[part] = run_part(part, options.device, options.tiny)
        print(f"\n== {part}: {json.dumps(record[part])[:SHOWN]}", flush=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def run_part(name: str, device: str, tiny: bool) -> dict[str, Any]:
    """Run a part in its own process; return its results, its time and the reason of a failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", device, "--inside", name]
        command += ["--output", str(path), *["--tiny"] * tiny]
        start = time.perf_counter()
        returncode, lines = run(command, PARTS[name].limit_s)
        found: dict[str, Any] = {"took_s": time.perf_counter() - start}
        if path.exists():
            found |= json.loads(path.read_text(encoding="utf-8"))
    if returncode is None:
        found["failed"] = f"stopped after {PARTS[name].limit_s:.0f} s"
    elif returncode:
        found["failed"] = f"exit status {returncode}"
    if returncode != 0:
        found["words"] = [*lines[:15], *lines[15:][-15:]]
    return found


def inside(name: str, device: str, tiny: bool, path: Path) -> None:
    """Run a part in this process. After each result the file is replaced as a whole."""
    found: dict[str, Any] = {}
    try:
        for key, numbers in PARTS[name].work(device, tiny):
            found[key] = numbers
            whole = path.with_suffix(".new")
            whole.write_text(json.dumps(found), encoding="utf-8")
            whole.replace(path)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
