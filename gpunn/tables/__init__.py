"""Columns of a table as people write them: text and missing cells become numbers.

Example:
    >>> encoding = Encoding.fit("t.csv", ("size", "colour"), [("1", "red"), ("?", "blue")])
    >>> encoding([("3", "blue"), ("", "green")]).tolist()
    [[3.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
"""

from gpunn.tables.cells import is_missing
from gpunn.tables.encoding import Column, Encoding

__all__ = ["Column", "Encoding", "is_missing"]
