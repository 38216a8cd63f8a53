"""Neural networks for people who live in NumPy, CuPy and scikit-learn.

One piece of code for every layer, loss and backward pass runs on NumPy (CPU) or CuPy (CUDA GPU).

Example:
    >>> import gpunn as gn
    >>> net = gn.nn.Sequential(gn.nn.Linear(64, 32, activation="relu"), gn.nn.Linear(32, 10))
    >>> trainer = gn.Trainer(net, loss="softmax_cross_entropy", optimizer="adam", seed=0)
    >>> digits = gn.data.load_digits()
    >>> history = trainer.fit(digits.x, digits.y, epochs=1, progress=False)
"""

from gpunn import data, nn, ops, optim, plot, train
from gpunn.autograd import Tensor, gradcheck, no_grad, tensor
from gpunn.backends import (
    Device,
    backend,
    choose_device,
    default_device,
    device,
    diagnose,
    manual_seed,
    set_default_device,
)
from gpunn.errors import GpunnError
from gpunn.train import Trainer, load, save

__version__ = "0.1.0"

__all__ = [
    "Device",
    "GpunnError",
    "Tensor",
    "Trainer",
    "backend",
    "choose_device",
    "data",
    "default_device",
    "device",
    "diagnose",
    "gradcheck",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plot",
    "save",
    "set_default_device",
    "tensor",
    "train",
]
