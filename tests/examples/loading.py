"""Examples have numbers in front of their names, so they are imported by string."""

from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def example(name):
    """The module of an example."""
    return import_module(f"examples.{name}")
