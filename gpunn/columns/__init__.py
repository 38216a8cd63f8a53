"""The columns of a table as people have them, and how their cells become numbers.

Example:
    >>> colours = ["red", "blue", "red", "blue"]
    >>> table = RawTable.of({"colour": colours, "size": ["1", "?", "2", "3"]})
    >>> encoding = Encoding.fit(table)
    >>> encoding.encoded_names, encoding.levels
    (('size', 'colour', 'size is missing'), (0, 2, 2))
    >>> encoding(table).tolist()
    [[1.0, 1.0, 0.0], [2.0, 0.0, 1.0], [2.0, 1.0, 0.0], [3.0, 0.0, 0.0]]
"""

from gpunn.columns.cells import is_missing
from gpunn.columns.encoding import Encoding
from gpunn.columns.kinds import KINDS, Column, find_columns
from gpunn.columns.raw import RawTable

__all__ = ["KINDS", "Column", "Encoding", "RawTable", "find_columns", "is_missing"]
