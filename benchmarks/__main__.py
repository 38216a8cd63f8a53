"""Run the suite from a checkout: `python -m benchmarks`."""

import typer

from gpunn.benchmarks.command import bench

if __name__ == "__main__":
    typer.run(bench)
