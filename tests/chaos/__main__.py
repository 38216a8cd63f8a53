"""Run `python -m tests.chaos --runs 200`: it prints a line for each run, and the number of faults.

A run is a fit with checkpoints. Its job is disturbed up to three times, and goes on each time with
another number of workers. It must end with the bits of the unbroken fit. A disturbed job must end
within its limit, and leave no process.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from gpunn.distributed.launch import RANKS, Job
from tests.train.test_jobs import FIT, ROOT, digests, mpiexec

LIMIT_S, END_S = 2, 40
ACTIONS = {"kill": signal.SIGKILL, "suspend": signal.SIGSTOP, "stop": signal.SIGTERM}


def workers_of(job):
    """The processes of the workers of a job."""
    return [p for p, environment in job._processes() if any(n in environment for n in RANKS)]


def job_of(folder, size):
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PAUSE": "0.1"}
    return Job([sys.executable, "-c", FIT, str(folder), "12"], size, mpiexec(), LIMIT_S)


def disturbed(folder, size, dice):
    """Start a job, disturb it after a while, and return what was done and what was wrong."""
    job = job_of(folder, size)
    action = dice.choice([*ACTIONS, None])
    time.sleep(dice.uniform(0.3, 2.3))
    there = workers_of(job)
    if action and there:
        try:
            os.kill(dice.choice(there), ACTIONS[action])
        except ProcessLookupError:
            action = "late"
    begun = time.monotonic()
    status = job.wait()
    wrong = f"leaves {len(job._processes())} processes" if job._processes() else ""
    if time.monotonic() - begun > END_S:
        wrong = "takes too long"
    if status == 0 and not digests(folder):
        wrong = "ends well without a result"
    return action, status, wrong


def run(folder, dice, expected):
    """Do one run, and return a line about it, and whether it went as it must."""
    words = []
    for _ in range(3):
        size = dice.randint(1, 4)
        action, status, wrong = disturbed(folder, size, dice)
        words.append(f"{size} {action or '-'} {status}")
        if wrong:
            return f"{', '.join(words)}: {wrong}", False
        if status == 0:
            break
    else:
        size = dice.randint(1, 4)
        words.append(f"{size} - {job_of(folder, size).wait()}")
    same = digests(folder) == {expected}
    return f"{', '.join(words)}: {'same bits' if same else 'OTHER BITS'}", same


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, faults = random.Random(options.seed), 0
    place = Path(tempfile.mkdtemp())
    (place / "unbroken").mkdir()
    job_of(place / "unbroken", 2).wait()
    (expected,) = digests(place / "unbroken")
    for number in range(options.runs):
        folder = place / str(number)
        folder.mkdir()
        line, well = run(folder, dice, expected)
        faults += not well
        print(f"{number:4d}  {line}", flush=True)
        shutil.rmtree(folder)
    print(f"{faults} faults in {options.runs} runs")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
