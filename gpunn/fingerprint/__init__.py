"""Fingerprints of everything that a computation depends on, and objects that count changes."""

from gpunn.fingerprint.identity import Identity
from gpunn.fingerprint.tracked import Latest, Same, Tracked
from gpunn.fingerprint.walk import Fingerprint

__all__ = ["Fingerprint", "Identity", "Latest", "Same", "Tracked"]
