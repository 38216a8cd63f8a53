"""The playground: one HTML file that trains small networks in the browser, without a server.

The page contains the kernels of the compiled CPU path as WebAssembly. Its training launches them in
the order in which `gpunn.Trainer` does, so that its losses have the same bits as those of a trainer
on kernels that are compiled for the same width of vectors.
"""

from gpunn.playground.document import page, write

__all__ = ["page", "write"]
