"""The one logger of the library, named gpunn."""

from __future__ import annotations

import logging

logger = logging.getLogger("gpunn")
