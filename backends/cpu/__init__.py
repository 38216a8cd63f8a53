"""The CPU: NumPy, buffers that are used again, recorded steps, compiled kernels."""
