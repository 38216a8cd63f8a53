"""Run commands with a time limit, and keep the output of those that exceed it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """The end of a command: its status, or None if it was stopped, and the lines it printed."""

    returncode: int | None
    lines: list[str]


def run(command: Sequence[str], timeout_s: float) -> Ended:
    """Run a command in the repository; stop it and its child processes when the time is up.

    Python does not buffer its output, so the lines of a stopped command are kept.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout_s)
            returncode: int | None = process.returncode
        except subprocess.TimeoutExpired:
            returncode = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return Ended(returncode, output.read().splitlines())
