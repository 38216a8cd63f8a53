"""Show the forward and the backward pass step by step: names, formulas and values.

Every formula is a Python expression, so it can be checked by evaluating it. A bar above a name
stands for an error signal, the derivative of the loss by that quantity (lecture 003).

Example:
    >>> from gpunn.explain import function
    >>> steps = function(lambda a, b: {"f": a * b, "L": (a * b - 1.0) ** 2 * 0.5}, a=3.0, b=2.0)
    >>> float(steps["a"].grad)
    10.0
"""

from gpunn.explain.kernels import kernel
from gpunn.explain.steps import Quantity, Steps
from gpunn.explain.trace import function, network

__all__ = ["Quantity", "Steps", "function", "kernel", "network"]
