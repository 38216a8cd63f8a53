"""What only a machine with a GPU can show; run it with `python -m benchmarks.gpu`."""
