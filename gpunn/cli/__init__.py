"""The command line: gpunn train | predict | doctor."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an error of gpunn's is one line on stderr and exit status 2."""
    from gpunn.cli.app import app
    from gpunn.errors import GpunnError

    try:
        app()
    except GpunnError as error:
        print(f"gpunn: error: {error}", file=sys.stderr)
        sys.exit(2)
