"""The cache folder, for downloads and compiled kernels."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder, by the rule of `pooch.os_cache` but without needing pooch.

    Raises:
        OSError: this user has no home folder.
    """
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
            return Path(local) / "gpunn" / "gpunn" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "gpunn"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpunn"
    except RuntimeError as error:
        raise OSError(f"{error}: set XDG_CACHE_HOME") from error
