"""The contenders that are measured on the CPU, in the order of the tables."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

from gpunn.backends import backend
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.compiled import find_compiler
from gpunn.benchmarks.contenders.jax_step import jax_step
from gpunn.benchmarks.contenders.naive import naive_step
from gpunn.benchmarks.contenders.own import gpunn_step, matrix_products
from gpunn.benchmarks.contenders.sklearn_step import sklearn_step
from gpunn.benchmarks.contenders.torch_step import torch_step
from gpunn.benchmarks.networks import Network
from gpunn.benchmarks.timing import Work

FLOOR = "matrix products"
"""The contender that does nothing but the matrix products of a step."""


class Contender(NamedTuple):
    """A training step that is compared with others.

    Attributes:
        make: (network, rule) -> the step.
        package: the package that it needs; "" for gpunn alone.
        compiled: whether it needs a C++ compiler.
        drops: whether it has dropout.
    """

    make: Callable[[Network, str], Work]
    package: str = ""
    compiled: bool = False
    drops: bool = True

    def why_not(self, network: Network) -> str:
        """Return the reason why it cannot run on this network here; "" if it can."""
        if self.package and not importlib.util.find_spec(self.package):
            return f"{self.package} is not installed"
        if self.compiled and not find_compiler().command:
            return find_compiler().why
        if network.rate and not self.drops:
            return "it has no dropout"
        return ""


def _numpy_alone(network: Network, rule: str) -> Work:
    """Build a captured step with NumPy's kernels. A recording keeps the kernels it was made of."""
    b = backend("cpu")
    assert isinstance(b, NumpyBackend)
    with b.numpy_alone():
        step = gpunn_step(network, rule)
        step()  # runs eagerly
        step()  # is recorded
    return step


CONTENDERS = {
    FLOOR: Contender(lambda network, rule: matrix_products(network)),
    "gpunn compiled": Contender(gpunn_step, compiled=True),
    "gpunn NumPy alone": Contender(_numpy_alone),
    "gpunn eager": Contender(lambda network, rule: gpunn_step(network, rule, captured=False)),
    "naive NumPy": Contender(naive_step),
    "PyTorch": Contender(torch_step, "torch"),
    "PyTorch fused": Contender(lambda n, rule: torch_step(n, rule, fused=True), "torch"),
    "torch.compile": Contender(
        lambda n, rule: torch_step(n, rule, mode="default"), "torch", compiled=True
    ),
    "JAX jit": Contender(jax_step, "jax"),
    "scikit-learn": Contender(sklearn_step, "sklearn", drops=False),
}
"""The contenders of the benchmarks of training steps, by name."""
