"""How cuBLASLt is found and declared, and how long what it makes lives."""

from __future__ import annotations

import ctypes
import gc
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpunn.backends.cuda.cublaslt import SIGNATURES, CublasLt, CublasLtError, LibraryNotFound
from tests.standin.backend import standin_cupy
from tests.standin.cublaslt import FakeCublasLt
from tests.standin.machine import MACHINE

XP = standin_cupy()


def square():
    return XP.ones((4, 4), np.float32)


def test_descriptors_live_as_long_as_the_object():
    fake = FakeCublasLt()
    lt = CublasLt(fake, XP)
    assert fake.live == [""]
    assert lt.matmul(square(), square(), square())
    assert fake.live == ["", "MatmulDesc", *["MatrixLayout"] * 3]
    lt.close()
    assert fake.live == []
    lt.close()
    with pytest.raises(CublasLtError, match="close"):
        lt.matmul(square(), square(), square())


def test_the_end_of_the_object_frees_all():
    fake = FakeCublasLt()
    gc.collect()
    used = MACHINE.pool.used_bytes()
    lt = CublasLt(fake, XP)
    lt.matmul(square(), square(), square())
    lt.matmul(square(), square(), square(), tf32=True)
    del lt
    assert fake.live == []
    assert MACHINE.pool.used_bytes() == used


def test_a_real_library_gets_its_prototypes_declared():
    fake = FakeCublasLt()

    class Declared(ctypes.CDLL):
        def __init__(self):
            """Load nothing."""

        def __getattr__(self, name):
            return getattr(fake, name)

    for name, types in SIGNATURES.items():
        getattr(fake, name).argtypes = (ctypes.c_char_p,) * len(types)  # which takes nothing here
    lt, out = CublasLt(Declared(), XP), XP.empty((4, 4), np.float32)
    assert lt.matmul(XP.ones((4, 2), np.float32), XP.ones((2, 4), np.float32), out)
    assert (out.get() == 2).all()


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (None, "cuda.pathfinder"),
        (lambda name: SimpleNamespace(abs_path=None), "path"),
        (lambda name: SimpleNamespace(abs_path=__file__), "loaded"),
        (lambda name: (_ for _ in ()).throw(RuntimeError("nowhere")), "nowhere"),
    ],
    ids=["no finder", "no path", "no library", "not found"],
)
def test_a_missing_library_is_absent_with_its_reason(monkeypatch, loader, reason):
    finder = ModuleType("cuda.pathfinder")
    finder.load_nvidia_dynamic_lib = loader
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder if loader else None)
    with pytest.raises(LibraryNotFound, match=reason):
        CublasLt.find(XP)
