"""`python -m gpunn.accel [--verbose] script.py [args]`, or `-m module [args]`."""

from __future__ import annotations

import io
import os
import runpy
import sys
from types import ModuleType
from typing import NoReturn

from gpunn import accel

USAGE = """usage: python -m gpunn.accel [--verbose] script.py [args]
       python -m gpunn.accel [--verbose] -m module [args]

Run a script or module in which scikit-learn's MLPClassifier and MLPRegressor train and predict
with gpunn, with scikit-learn's numbers.

  --verbose      print what ran on gpunn, what on scikit-learn, and why
                 (also GPUNN_ACCEL_VERBOSE=1)

With GPUNN_ACCEL=0 in the environment, the script runs as it would without gpunn.
"""


def main() -> None:
    """Run what the command line names."""
    rest = sys.argv[1:]
    verbose = None
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        option = rest.pop(0)
        if option in ("-h", "--help"):
            print(USAGE, end="")
            return
        if option not in ("-v", "--verbose"):
            _refuse(f"unknown option {option}; expected --verbose, -m or a script")
        verbose = True
    as_module = rest[:1] == ["-m"]
    rest = rest[as_module:]
    if not rest:
        _refuse(f"got no {'module' if as_module else 'script'}; expected its name")
    if accel.is_set(accel.SWITCH, default="1"):
        accel.patch(verbose)
    sys.argv[:] = rest
    if as_module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        run_script(rest[0])


def run_script(path: str) -> None:
    """Run a file as `python` does: as the module `__main__`, with its folder first in the path."""
    if os.path.isdir(path):
        runpy.run_path(path, run_name="__main__")  # type: ignore[unused-ignore]
        return
    try:
        with io.open_code(os.path.abspath(path)) as file:
            text = file.read()
    except OSError as error:
        print(f"gpunn.accel: can't open {path!r}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = ModuleType("__main__")
    module.__file__, module.__spec__ = path, None
    vars(module)["__builtins__"] = __builtins__
    sys.modules["__main__"] = module  # it stays there, for threads and for `python -i`
    exec(compile(text, path, "exec", dont_inherit=True), vars(module))


def _refuse(words: str) -> NoReturn:
    print(f"{USAGE}\ngpunn.accel: {words}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
