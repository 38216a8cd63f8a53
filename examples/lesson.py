"""The common part of all examples: the options, the picture, and the time taken."""

import argparse
import os
import sys
import time
from pathlib import Path

import gpunn as gn


def run(main):
    """Run `main(short)`, which prints its numbers and returns a figure, and save the figure.

    Everything that `main` creates is on the device that `--device` names.
    """
    here = Path(sys.argv[0])
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--short", action="store_true", help="take seconds, not minutes")
    parser.add_argument("--out", type=Path, default=here.parent / "out", help="picture folder")
    parser.add_argument("--data-dir", help="folder with MNIST; downloaded if it is nowhere")
    options = parser.parse_args()
    if options.data_dir:
        os.environ["GPUNN_DATA_DIR"] = options.data_dir
    start = time.perf_counter()
    with gn.device(options.device):
        figure = main(options.short)
        device = gn.backend().describe()
    seconds = time.perf_counter() - start
    options.out.mkdir(parents=True, exist_ok=True)
    animate = getattr(sys.modules[main.__module__], "animate", None)
    if animate is not None:
        animate(options.out / f"{here.stem}.gif")
    gn.plot.save(figure, options.out / f"{here.stem}.png", dpi=110)
    print(f"{options.out / here.stem}.png after {seconds:.1f} s on {device}")
