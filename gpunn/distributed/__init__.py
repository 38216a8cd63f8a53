"""One fit on any number of workers, with the same bits."""

from gpunn.distributed.tree import Tree, edges

__all__ = ["Tree", "edges"]
