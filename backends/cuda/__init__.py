"""The GPU: CuPy, kernels compiled by NVRTC, cuBLASLt, CUDA graphs."""
