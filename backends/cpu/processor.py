"""Linux's description of the processor."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def processor_lines(*starts: str) -> list[str]:
    """Return the lines of /proc/cpuinfo that start with one of `starts`; none on other systems."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith(starts)]


def processor_flags() -> set[str]:
    """Return Linux's names of the processor's instruction sets; empty on other systems."""
    return set(" ".join(processor_lines("flags")).split())
