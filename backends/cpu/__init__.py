"""The CPU backend: NumPy, a pool of buffers, recorded steps and compiled kernels."""
