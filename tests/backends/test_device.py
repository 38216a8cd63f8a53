"""Devices: names, precedence, and the true reason why one cannot be used."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends import registry
from gpunn.backends.choice import parse
from gpunn.backends.cuda import diagnosis as cuda_diagnosis
from gpunn.backends.cuda.backend import CupyBackend
from gpunn.backends.diagnosis import RungError, climb
from gpunn.errors import ArgumentError, DeviceUnavailableError, DTypeError, UnknownNameError

pytestmark = pytest.mark.fast


@pytest.fixture
def no_default(monkeypatch):
    monkeypatch.delenv("GPUNN_DEVICE", raising=False)
    yield
    gn.set_default_device(None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", "cpu"), ("CPU", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("cpu:0", "cpu")],
)
def test_names(name, expected):
    assert str(parse(name)) == expected


@pytest.mark.parametrize("name", ["gpu:x", "", "cuda:-1", "cpu:1", "cuda 0"])
def test_names_of_the_wrong_form(name):
    with pytest.raises((ArgumentError, UnknownNameError), match=r"auto, cpu, cuda|one CPU"):
        parse(name)


def test_a_bad_name_in_the_environment_says_where(no_default, monkeypatch):
    monkeypatch.setenv("GPUNN_DEVICE", "gpu")
    with pytest.raises(UnknownNameError, match="GPUNN_DEVICE"):
        gn.tensor([1.0])


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(UnknownNameError, match=r"'tpu'.*auto, cpu, cuda"):
        gn.backend("tpu")


def test_precedence(no_default, monkeypatch):
    assert str(gn.default_device()) == "cpu"
    monkeypatch.setenv("GPUNN_DEVICE", "standin")
    assert str(gn.default_device()) == "standin:0"
    gn.set_default_device("cpu")
    assert str(gn.default_device()) == "cpu"
    with gn.device("standin"):
        assert str(gn.default_device()) == "standin:0"
        with gn.device("cpu"):
            assert str(gn.tensor([1.0]).device) == "cpu"
        assert str(gn.tensor([1.0]).device) == "standin:0"
        assert str(gn.tensor([1.0], device="cpu").device) == "cpu"
    assert str(gn.default_device()) == "cpu"


def test_auto_says_why(monkeypatch, no_default):
    choice = gn.choose_device("auto")
    diagnosis = gn.diagnose("cuda")
    assert choice.device.kind == ("cuda" if diagnosis.usable else "cpu")
    assert diagnosis.reason in choice.why


def test_cuda_without_a_gpu_says_the_cause_and_what_to_do(monkeypatch):
    monkeypatch.setattr(cuda_diagnosis.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(registry, "diagnose", lambda kind: CupyBackend.diagnose())
    with pytest.raises(DeviceUnavailableError) as caught:
        gn.tensor([1.0], device="cuda:55")  # a number that no earlier test has made
    message = str(caught.value)
    assert "CuPy is not installed" in message
    assert 'pip install "gpunn[cuda13]"' in message
    assert "gpunn doctor" in message


def test_a_device_number_that_is_not_there(cuda_device):
    kind = cuda_device.partition(":")[0]
    with pytest.raises(DeviceUnavailableError, match=rf'"{kind}:70".*use "{kind}:\d+" or less'):
        gn.tensor([1.0], device=f"{kind}:70")


def test_the_ladder_stops_at_the_first_rung_that_fails():
    def fails():
        raise RungError("no ladder", "buy one")

    diagnosis = climb([("first", lambda: "fine"), ("second", fails), ("third", lambda: "never")])
    assert [(r.name, r.ok) for r in diagnosis.rungs] == [("first", True), ("second", False)]
    assert diagnosis.untried == ("third",)
    assert not diagnosis.usable
    assert (diagnosis.reason, diagnosis.remedy) == ("no ladder", "buy one")


def test_a_check_may_raise_anything():
    assert "ZeroDivisionError" in climb([("check", lambda: str(1 / 0))]).reason


@pytest.mark.parametrize(
    ("rung", "break_it", "reason"),
    [
        ("driver", ("driverGetVersion", lambda: 0), "no NVIDIA driver"),
        ("device", ("getDeviceCount", lambda: 0), "no CUDA device"),
    ],
)
def test_each_rung_names_its_cause(rung, break_it, reason, monkeypatch):
    from tests.standin.backend import StandinBackend, standin_cupy

    name, function = break_it
    monkeypatch.setattr(standin_cupy().cuda.runtime, name, function)
    diagnosis = StandinBackend.diagnose()
    assert diagnosis.rungs[-1].name == rung
    assert reason in diagnosis.reason
    assert diagnosis.remedy


def test_the_whole_ladder_holds_on_the_stand_in():
    from tests.standin.backend import StandinBackend

    diagnosis = StandinBackend.diagnose()
    assert [rung.name for rung in diagnosis.rungs] == [
        "package",
        "driver",
        "device",
        "compile",
        "matmul",
    ]
    assert diagnosis.usable


def test_an_array_of_no_device():
    with pytest.raises(DTypeError, match=r"numpy\.asarray"):
        gn.backends.backend_of([1.0])


def test_asking_for_an_array_imports_no_cupy():
    gn.backends.backend_of(np.ones(1))
    assert "cupy" not in sys.modules or gn.diagnose("cuda").rungs[0].ok


def test_threads_that_ask_first_get_one_backend(monkeypatch):
    monkeypatch.setattr(registry, "_instances", {})
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: registry.backend_for(parse("cpu")), range(64)))
    assert len(set(map(id, found))) == 1
