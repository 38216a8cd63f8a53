"""The stand-in as a device: the library's own CuPy backend on the stand-in for CuPy."""

from __future__ import annotations

from functools import cache

from gpunn.backends import Device, register_backend
from gpunn.backends.cuda.backend import CupyBackend
from gpunn.backends.cuda.cublaslt import CublasLt
from gpunn.backends.diagnosis import RungError
from tests.standin import nccl
from tests.standin.compiler import why_unavailable
from tests.standin.cublaslt import FakeCublasLt
from tests.standin.cupy import make


@cache
def standin_cupy():
    """The one stand-in module of the process."""
    return make()


class StandinBackend(CupyBackend):
    """`CupyBackend`, unchanged but for the module it runs on."""

    kind = "standin"

    @classmethod
    def _cupy(cls):
        return standin_cupy()

    @classmethod
    def _nccl(cls):
        return nccl

    def _cublaslt(self):
        return CublasLt(FakeCublasLt(), self.xp)

    @classmethod
    def _check_package(cls):
        if why_unavailable():
            raise RungError(why_unavailable(), "Install g++ to run CUDA bodies on the CPU")
        return f"stand-in for CuPy {cls._cupy().__version__}"

    @classmethod
    def device_of(cls, array):
        known = isinstance(array, cls._cupy().ndarray)
        return Device("standin", array.device.id) if known else None


def register():
    """Make `device="standin"` known."""
    register_backend("standin", lambda: StandinBackend)
