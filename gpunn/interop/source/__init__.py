"""Write a model as one file that needs no library, in another language."""

from gpunn.interop.source.export import SUFFIXES, TARGETS, to_source

__all__ = ["SUFFIXES", "TARGETS", "to_source"]
