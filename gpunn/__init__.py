"""Neural networks for users of NumPy, CuPy and scikit-learn.

The same code for layers, losses and backward passes runs on NumPy (CPU) and CuPy (CUDA GPU).

Example:
    >>> import gpunn as gn
    >>> net = gn.nn.Sequential(gn.nn.Linear(64, 32, activation="relu"), gn.nn.Linear(32, 10))
    >>> trainer = gn.Trainer(net, loss="softmax_cross_entropy", optimizer="adam", seed=0)
    >>> digits = gn.data.load_digits()
    >>> history = trainer.fit(digits.x, digits.y, epochs=1, progress=False)
"""

from importlib import import_module
from os import environ as _environ
from typing import TYPE_CHECKING, Any

from gpunn import beside as _beside  # noqa: F401  finds gpunn.backends in any source tree
from gpunn import moved as _moved  # noqa: F401  registers the old names of modules
from gpunn import ops
from gpunn.autograd import Tensor, from_dlpack, gradcheck, no_grad, tensor
from gpunn.backends import (
    Device,
    backend,
    choose_device,
    default_device,
    device,
    diagnose,
    get_num_threads,
    manual_seed,
    set_default_device,
    set_num_threads,
)
from gpunn.errors import GpunnError
from gpunn.guesses import missing

if TYPE_CHECKING:
    from gpunn import accel, data, distributed, explain, interop, nn, optim, plot, train
    from gpunn.train import Trainer, load, save

__version__ = "0.1.0"

__all__ = [
    "Device",
    "GpunnError",
    "Tensor",
    "Trainer",
    "accel",
    "backend",
    "choose_device",
    "data",
    "default_device",
    "device",
    "diagnose",
    "distributed",
    "explain",
    "from_dlpack",
    "get_num_threads",
    "gradcheck",
    "interop",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plot",
    "save",
    "set_default_device",
    "set_num_threads",
    "tensor",
    "train",
]

_ON_FIRST_USE = {
    "accel": "gpunn.accel",
    "data": "gpunn.data",
    "distributed": "gpunn.distributed",
    "explain": "gpunn.explain",
    "interop": "gpunn.interop",
    "nn": "gpunn.nn",
    "optim": "gpunn.optim",
    "plot": "gpunn.plot",
    "train": "gpunn.train",
    "Trainer": "gpunn.train",
    "load": "gpunn.train",
    "save": "gpunn.train",
}


def __getattr__(name: str) -> Any:
    """Import a submodule on first use, so that `import gpunn` is fast."""
    if name not in _ON_FIRST_USE:
        raise missing("gpunn", name, __all__)
    module = import_module(_ON_FIRST_USE[name])
    value = module if module.__name__ == f"gpunn.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "GPUNN_ACCEL" in _environ:
    import_module("gpunn.accel").patch_if_wanted()
