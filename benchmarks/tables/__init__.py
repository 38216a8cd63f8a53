"""Table models against each other on public sets: `python -m benchmarks.tables`."""
