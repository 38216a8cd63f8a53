"""Write a model as one file that needs no library, in another language."""

from gpunn.interop.source.export import SUFFIXES, TARGETS, to_source
from gpunn.interop.source.int8 import round_to_int8

__all__ = ["SUFFIXES", "TARGETS", "round_to_int8", "to_source"]
