"""What decides a computation, as values with names, and objects that count their changes."""

from gpunn.fingerprint.tracked import Same, Tracked
from gpunn.fingerprint.walk import Fingerprint

__all__ = ["Fingerprint", "Same", "Tracked"]
