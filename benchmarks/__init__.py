"""The benchmark suite of `gpunn bench`, importable as `gpunn.benchmarks`."""
