"""The checks and measurements that need a GPU; run them with `python -m benchmarks.gpu`."""
