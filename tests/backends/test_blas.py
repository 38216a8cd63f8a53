"""What NumPy's BLAS computes for, and what is said where that is not this processor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpunn.backends.cpu import blas
from gpunn.backends.cpu import processor as processor_module
from gpunn.cli import doctor

AVX2 = "processor : 0\nmodel name : A\nflags\t\t: fpu avx avx2 fma\n"
AVX512 = AVX2.replace("fma", "fma avx512f avx512vl")


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What is said of a processor and of the name that OpenBLAS gives it."""

    def say(processor: str, core: str) -> blas.Rung | None:
        monkeypatch.delenv(blas.VARIABLE, raising=False)
        (tmp_path / "cpuinfo").write_text(processor)
        monkeypatch.setattr(processor_module, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(blas, "core_name", lambda: core)
        return blas.matrix_products()

    return say


@pytest.mark.parametrize("core", ["Haswell", "Zen", "Nehalem"])
def test_narrow_kernels_on_a_wide_processor(told, core):
    found = told(AVX512, core)
    assert not found.ok
    assert f"OpenBLAS for {core}, and this processor has AVX-512" in found.detail
    assert "OPENBLAS_CORETYPE=SkylakeX" in found.remedy


@pytest.mark.parametrize(
    ("processor", "core"),
    [(AVX512, "SkylakeX"), (AVX512, "Cooperlake"), (AVX512, "SapphireRapids"), (AVX2, "Haswell")],
)
def test_kernels_that_fit(told, processor, core):
    found = told(processor, core)
    assert found.ok
    assert found.detail == f"OpenBLAS for {core}"
    assert not found.remedy


@pytest.mark.parametrize(("processor", "core"), [("", "Haswell"), (AVX512, "")])
def test_nothing_is_said_of_what_is_not_known(told, processor, core):
    assert told(processor, core) is None


def test_who_has_set_it_is_told(told, monkeypatch):
    assert "OPENBLAS_CORETYPE" not in told(AVX512, "Haswell").detail
    monkeypatch.setenv(blas.VARIABLE, "Haswell")
    found = blas.matrix_products()
    assert "OPENBLAS_CORETYPE=Haswell is set" in found.detail
    assert found.remedy.startswith("unset OPENBLAS_CORETYPE")


def test_a_system_without_such_files(monkeypatch, tmp_path):
    monkeypatch.setattr(blas, "MAPS", tmp_path / "none")
    monkeypatch.setattr(processor_module, "CPUINFO", tmp_path / "none")
    assert blas.core_name() == ""
    assert blas.matrix_products() is None


def test_libraries_are_numpys_first(monkeypatch, tmp_path):
    line = "7f0-7f1 r-xp 00000000 08:01 42                         {}\n"
    names = ("/a b/scipy.libs/libscipy_openblas.so", "/a b/numpy.libs/libopenblas.so", "/lib/c.so")
    (tmp_path / "maps").write_text("".join(map(line.format, names)) + "7f2-7f3 rw-p 0 00:00 0\n")
    monkeypatch.setattr(blas, "MAPS", tmp_path / "maps")
    assert blas._libraries() == [names[1], names[0]]
    assert blas.core_name() == ""  # no such libraries


def test_openblas_is_asked_itself():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    pools = [p for p in threadpoolctl.threadpool_info() if "numpy" in p["filepath"]]
    if not pools or pools[0]["internal_api"] != "openblas":
        pytest.skip("NumPy's BLAS is not its own OpenBLAS")
    assert blas.core_name() == pools[0]["architecture"]
    code = "import numpy; from gpunn.backends.cpu import blas; print(blas.core_name())"
    env = os.environ | {blas.VARIABLE: "Nehalem"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "Nehalem"


def test_openblas_says_how_many_threads_it_takes(monkeypatch, tmp_path):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if not blas.core_name():
        pytest.skip("NumPy's BLAS is not OpenBLAS")
    with threadpoolctl.threadpool_limits(1):
        assert blas.thread_count() == 1
    monkeypatch.setattr(blas, "MAPS", tmp_path / "none")
    assert blas.thread_count() == blas.available_processors() >= 1


@pytest.mark.parametrize("ok", [True, False])
def test_the_doctor_says_it(ok, monkeypatch, capsys):
    remedy = "" if ok else "set something"
    rung = blas.Rung("matrix products", ok, "OpenBLAS for a Haswell", remedy)
    monkeypatch.setattr(doctor, "matrix_products", lambda: rung)
    doctor.run()
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"  {'ok' if ok else 'slow':8} matrix products: OpenBLAS for a Haswell")
    assert (lines[at + 1].strip() == "set something") == (not ok)


def test_a_doctor_who_does_not_know_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "matrix_products", lambda: None)
    doctor.run()
    assert "matrix products" not in capsys.readouterr().out
