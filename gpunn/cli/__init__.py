"""The command line: gpunn train | predict | export | playground | launch | doctor | bench."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line.

    A `GpunnError` is printed as one line on stderr and ends with status 2, a `WorkerError` with
    75. Ctrl-C ends with status 130 and SIGTERM with 143, both after unfinished files are removed.
    """
    signal.signal(signal.SIGTERM, _terminate)
    from gpunn.cli.app import app
    from gpunn.errors import GpunnError

    try:
        app()
    except GpunnError as error:
        from gpunn.distributed.mpi import ended_by

        print("gpunn: error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(ended_by(error))


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
