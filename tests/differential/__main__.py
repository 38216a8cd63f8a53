"""Run random programs until the time is over: python -m tests.differential --seconds 600."""

from __future__ import annotations

import argparse
import itertools
import time
import traceback

from tests.differential import KINDS
from tests.standin.backend import register


def main() -> int:
    """Run the kinds in turn, print each fault with its seed, and return 1 if there was one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kind", choices=[*KINDS], action="append")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    given = parser.parse_args()
    register()
    end, faults, done = time.monotonic() + given.seconds, 0, 0
    for seed in [given.seed] if given.seed is not None else itertools.count(given.first):
        for name in given.kind or KINDS:
            check, devices = KINDS[name]
            for device in devices:
                try:
                    check(seed, device)
                except Exception:
                    faults += 1
                    print(f"FAULT: --kind {name} --seed {seed} on {device}")
                    traceback.print_exc()
                done += 1
        if time.monotonic() > end:
            break
    print(f"{done} programs, {faults} faults; the last seed was {seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
