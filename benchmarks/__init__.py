"""The benchmark suite, importable as `gpunn.benchmarks`: `gpunn bench`."""
