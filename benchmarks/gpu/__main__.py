"""Everything that only a machine with a GPU can show, in one command and one JSON file.

    python -m benchmarks.gpu --output gpu.json
    python -m benchmarks.gpu --quick

The parts come in the order in which they tell most: does it run, is it right, is it captured, how
fast is a step. Each runs in a process of its own and is stopped when its time is up; what it found
until then is kept, and the file is written after every part. `--quick` runs the first four parts.
Needs CuPy and pytest; PyTorch, JAX, pytest-xdist and compute-sanitizer are used where they are
installed. `--device cpu` and `--device standin` try the suite itself.
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

SHOWN = 1500  # characters of a part on the screen; all of it is in the file

Found = Iterator[tuple[str, Any]]


class Part(NamedTuple):
    """One part of the suite.

    Attributes:
        work: yields a name and its numbers as soon as it has them; called with the device and
            whether the sizes are to be tiny.
        limit_s: after so many seconds it is stopped.
    """

    work: Callable[[str, bool], Found]
    limit_s: float


PARTS = {
    "doctor": Part(doctor, 30),
    "parity": Part(parity, 30),
    "capture": Part(capture, 45),
    "steps": Part(steps, 100),
    "epoch": Part(epoch, 30),
    "tests": Part(tests, 150),
    "nodes": Part(nodes, 45),
    "kernels": Part(kernels, 60),
    "jax": Part(jax, 60),
    "compiled": Part(compiled, 120),
    "sanitizer": Part(sanitizer, 60),
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
    """What a part found in a process of its own, how long it took, and how it failed."""
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
    """Run a part in this process; the file has what it found so far, whole, at any moment."""
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
