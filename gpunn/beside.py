"""Find the packages that stand beside `gpunn` in a source tree without symbolic links.

A checkout has links from gpunn/backends and gpunn/benchmarks to the folders beside gpunn/. An
unpacked sdist has none, and on Windows they may be text files. An installed package has folders.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from os import path
from typing import Any

HERE = path.dirname(path.abspath(__file__))
NAMES = {"gpunn.backends": "backends", "gpunn.benchmarks": "benchmarks"}


class Beside(PathFinder):
    """A finder of the two packages."""

    @classmethod
    def find_spec(cls, fullname: str, *given: Any) -> ModuleSpec | None:
        """Return where the package is; None for other modules."""
        if fullname not in NAMES:
            return None
        folder = path.join(path.dirname(HERE), NAMES[fullname])
        start = path.join(folder, "__init__.py")
        if not path.isfile(start):
            return None
        return spec_from_file_location(fullname, start, submodule_search_locations=[folder])


_LINKED = path.isdir(path.join(HERE, "backends"))
FOLDERS = [HERE, path.join(HERE if _LINKED else path.dirname(HERE), "backends")]
"""The folders of the library's own code. The second may be a link into a source tree."""

if not _LINKED:
    sys.meta_path.insert(0, Beside)
