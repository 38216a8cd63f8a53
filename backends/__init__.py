"""Devices, array buffers, kernels and random bits. Imported as `gpunn.backends`.

No module here contains a formula of a neural network. The formulas live in `gpunn.ops` and
`gpunn.optim`, each with a NumPy body and a CUDA body. `Backend.launch` runs them on a device.
"""

from gpunn.backends.base import Backend
from gpunn.backends.choice import (
    Choice,
    backend,
    choose_device,
    default_device,
    device,
    resolve_device,
    set_default_device,
)
from gpunn.backends.cpu.pool import scratch_like, widened
from gpunn.backends.cpu.threads import get_num_threads, set_num_threads
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis, Rung
from gpunn.backends.kernel import Elementwise, RowKernel, computed
from gpunn.backends.random import RandomStream, manual_seed
from gpunn.backends.registry import as_array, backend_of, diagnose, register_backend

__all__ = [
    "Backend",
    "Choice",
    "Device",
    "Diagnosis",
    "Elementwise",
    "RandomStream",
    "RowKernel",
    "Rung",
    "as_array",
    "backend",
    "backend_of",
    "choose_device",
    "computed",
    "default_device",
    "device",
    "diagnose",
    "get_num_threads",
    "manual_seed",
    "register_backend",
    "resolve_device",
    "scratch_like",
    "set_default_device",
    "set_num_threads",
    "widened",
]
