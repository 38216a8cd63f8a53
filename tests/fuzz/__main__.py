"""Damage model files and folders of checkpoints in every way we know, and read them.

    python -m tests.fuzz --files 10000

Each is read by `gpunn.load`, `read_info`, `interop.load_torch` and what resumes a fit, in one
process whose address space is limited. The result must be an error of gpunn's that says what was
expected, or exactly what another reader finds in the file; the memory at most twice the file and a
constant; and meanwhile nothing is written, removed, renamed, run, imported or unpickled.
Prints what became of each kind, and every fault with the seed that makes its file again.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import shutil
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.damage import KINDS
from tests.fuzz.honest import honest_files
from tests.fuzz.judge import Judge, Verdict

LARGE = 2**18
ADDRESSES = 2**30  # bytes that the process may map beyond what it has when it begins


def one(seed: int, files: list[Any], judge: Judge, folder: Path) -> tuple[str, list[Verdict]]:
    """Make the file of a seed and read it."""
    rng = random.Random(seed)
    name = list(KINDS)[seed % len(KINDS)]
    under = folder / "run"
    under.mkdir()
    try:
        wanted = rng.choice(("model", "model", "torch", "checkpoint", "checkpoint"))
        base = rng.choice([file for file in files if file.kind == wanted])
        KINDS[name](rng, base, files, under)
        verdicts = judge.verdicts(under)
        if name == "honest":
            expected = {"model": ("load", "read_info"), "torch": ("load_torch",)}
            readers = expected.get(base.kind, ("resume",))
            for verdict in verdicts:
                if verdict.reader in readers and verdict.outcome != "whole":
                    verdict.faults.append("refuses an honest file")
        return name, verdicts
    finally:
        shutil.rmtree(under)


def limit_addresses() -> None:
    """Let an allocation that nobody counts fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def report(found: list[tuple[int, str, Verdict]], seconds: float, grown: int) -> int:
    """Print the figures; how many faults there were."""
    for name in KINDS:
        outcomes = Counter(verdict.outcome for _, kind, verdict in found if kind == name)
        print(f"  {name:16}", ", ".join(f"{k} {n}" for k, n in outcomes.most_common()))
    print("by reader:")
    for reader in dict.fromkeys(verdict.reader for *_, verdict in found):
        outcomes = Counter(verdict.outcome for *_, verdict in found if verdict.reader == reader)
        print(f"  {reader:16}", ", ".join(f"{k} {n}" for k, n in outcomes.most_common()))
    faulty = [(seed, kind, verdict) for seed, kind, verdict in found if verdict.faults]
    for seed, kind, verdict in faulty[:20]:
        print(f"FAULT seed {seed}, {kind}, {verdict.reader}: {'; '.join(verdict.faults)[:600]}")
    large = [v.ratio for *_, v in found if v.size >= LARGE and v.json < v.size / 10]
    small = [v.peak for *_, v in found if v.size < LARGE and v.json < LARGE / 10]
    excess = [v.peak - 2 * v.size for *_, v in found]
    print(
        f"{len({seed for seed, *_ in found})} files, {len(found)} calls, {len(faulty)} faults in "
        f"{seconds:.0f} s\nmemory at the peak: {max(large, default=0):.2f} times the file where it "
        f"has 256 KiB and more, nine tenths of them arrays; {max(small, default=0) / 2**10:.0f} "
        "KiB for smaller ones with less than 26 KiB of JSON; "
        f"{max(excess, default=0) / 2**20:.1f} MiB over twice the file where that is all JSON; the "
        f"process grew by {grown / 2**20:.0f} MiB"
    )
    return len(faulty)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    options = parser.parse_args()
    warnings.simplefilter("error")
    logging.getLogger("gpunn").setLevel(logging.ERROR)
    files, judge, found = honest_files(), Judge(), []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(2 * len(KINDS)):  # what is imported and cached on first use
            one(seed, files, judge, Path(name))
        limit_addresses()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        tracemalloc.start()
        for seed in range(options.seed, options.seed + options.files):
            kind, verdicts = one(seed, files, judge, Path(name))
            found += [(seed, kind, verdict) for verdict in verdicts]
        tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    return 1 if report(found, time.perf_counter() - start, grown * 1024) else 0


if __name__ == "__main__":
    sys.exit(main())
