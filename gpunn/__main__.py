"""`python -m gpunn` is the command `gpunn`."""

from gpunn.cli import main

main()
