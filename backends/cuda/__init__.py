"""The CUDA backend: CuPy, kernels that NVRTC compiles, cuBLASLt and CUDA graphs."""
