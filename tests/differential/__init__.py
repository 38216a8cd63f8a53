"""Random programs that are computed in two ways, which must agree.

    python -m tests.differential --seconds 600          # all kinds, on the CPU and the stand-in
    python -m tests.differential --kind sklearn --seed 7

A fault is printed with the kind and the seed that make the program again. The suite runs the first
seeds of each kind.
"""

from tests.differential import estimators, fits, graphs

KINDS = {
    "graphs": (graphs.check, ("cpu", "standin:0")),
    "fits": (fits.check, ("cpu", "standin:0")),
    "sklearn": (estimators.check, ("cpu",)),
}
"""The kinds: the function that checks one seed, and the devices that it runs on."""
