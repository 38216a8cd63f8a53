"""Limits: data that a device has no room for, and batches that it has no room for."""

from __future__ import annotations

import gc
import logging
import re

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError, DivergenceError, OutOfMemoryError


@pytest.fixture(autouse=True)
def no_limit_is_left():
    """Each device with its constants made, and without a limit afterwards."""
    known = [gn.backend(d) for d in ("standin", "cuda") if gn.diagnose(d).usable]
    gc.collect()  # of what earlier tests left in the pool
    for b in known:
        b.make_constants()
        b.free_memory()
    yield
    for b in known:
        b.limit_memory(None)


def network(device):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(nn.Linear(100, 64, "relu"), nn.Dropout(0.5), nn.Linear(64, 3))


@pytest.fixture
def data(rng):
    return rng.standard_normal((5000, 100), dtype=np.float32), rng.integers(0, 3, 5000)


def test_data_without_room_is_streamed_to_the_same_numbers(data, cuda_device, caplog):
    found = []
    for limit in (None, 2_400_000):  # the data takes 2 MB, most of which is not to be taken
        net = network(cuda_device)
        net.backend.free_memory()
        used = net.backend.memory_bytes()
        trainer = gn.Trainer(
            net, seed=1, capture=False, memory_limit=None if limit is None else used + limit
        )
        with caplog.at_level(logging.WARNING, "gpunn"):
            history = trainer.fit(*data, epochs=2, batch_size=200, validation=data, progress=False)
        found.append((history, net.state_dict(), trainer.evaluate(*data, batch_size=200)))
        net.backend.limit_memory(None)
    assert "streaming x from the host" in caplog.text
    assert found[0][0]["loss"] == found[1][0]["loss"]
    assert found[0][0]["val_loss"] == pytest.approx(found[1][0]["val_loss"], 1e-6)  # other batches
    assert found[0][2] == found[1][2]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


def test_a_streamed_fit_that_diverges_names_the_layer_of_the_broken_batch(data, cuda_device):
    x = data[0].copy()
    x[7] = 3e38  # finite, but no activation of it
    net = network(cuda_device)
    net.backend.free_memory()
    trainer = gn.Trainer(net, memory_limit=net.backend.memory_bytes() + 2_400_000)
    with pytest.raises(DivergenceError, match=r"layer '0'.*step 1 of epoch 1"):
        trainer.fit(x, data[1], epochs=1, batch_size=64, shuffle=False, progress=False)


def test_streamed_data_is_not_captured(data, cuda_device, caplog):
    net = network(cuda_device)
    net.backend.free_memory()
    limit = net.backend.memory_bytes() + 1_500_000
    trainer = gn.Trainer(net, memory_limit=limit)
    with caplog.at_level(logging.WARNING, "gpunn"):
        trainer.fit(*data, epochs=1, batch_size=64, progress=False)
    assert "without captured steps: the data is streamed from the host" in caplog.text


def test_a_batch_without_room_names_the_one_that_fits(data, cuda_device):
    net = network(cuda_device)
    b = net.backend
    b.free_memory()
    trainer = gn.Trainer(net, capture=False, memory_limit=b.memory_bytes() + 3_000_000)
    weights, calls = net.state_dict(), [stream.call for stream in net.streams()]
    with pytest.raises(
        OutOfMemoryError, match=r"got batch_size=5000.*batch_size=\d+ fits"
    ) as caught:
        trainer.fit(*data, epochs=1, batch_size=5000, progress=False)
    fits = int(re.search(r"batch_size=(\d+) fits", str(caught.value))[1])
    del caught  # whose traceback holds the arrays of the failed step
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, weights[name])
    assert [stream.call for stream in net.streams()] in (calls, [c + 1 for c in calls])
    assert fits in (2500, 1250, 625, 312)
    assert np.isfinite(trainer.fit(*data, epochs=1, batch_size=fits, progress=False)["loss"][0])


def test_a_fit_gives_its_memory_back(data, cuda_device):
    net = network(cuda_device)
    b = net.backend
    gn.Trainer(net).fit(*data, epochs=1, batch_size=500, progress=False)
    b.free_memory()
    kept = b.memory_bytes()
    gn.Trainer(network(cuda_device)).fit(*data, epochs=1, batch_size=500, progress=False)
    assert b.memory_bytes() <= kept + 500_000  # a model and its optimizer, not the data


def test_only_a_gpu_has_a_limit():
    with pytest.raises(ArgumentError, match="memory_limit=1000 on cpu"):
        gn.Trainer(network("cpu"), memory_limit=1000)


def test_a_narrow_batch_without_room_that_is_streamed_names_the_one_that_fits(data, cuda_device):
    pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 is in ml_dtypes")
    net = network(cuda_device)
    b = net.backend
    gn.Trainer(net, precision="bfloat16").fit(*data, epochs=1, batch_size=8, progress=False)
    b.free_memory()
    trainer = gn.Trainer(
        net, precision="bfloat16", capture=False, memory_limit=b.memory_bytes() + 2_200_000
    )
    with pytest.raises(OutOfMemoryError, match=r"batch_size=2500.*batch_size=\d+ fits"):
        trainer.fit(*data, epochs=1, batch_size=2500, progress=False)


def test_cupys_own_lack_of_room_is_told_in_the_words_of_the_library(data, cuda_device, monkeypatch):
    trainer = gn.Trainer(network(cuda_device))
    b = trainer.model.backend

    def full(*arrays, **options):
        raise b.xp.cuda.memory.OutOfMemoryError(2**30, 0, 2**20)

    monkeypatch.setattr(b.xp, "ascontiguousarray", full)
    for work in (trainer.fit, trainer.evaluate):
        with pytest.raises(OutOfMemoryError, match=r"no room \(.*smaller batch_size"):
            work(*data)
    net, (x, y) = trainer.model, map(b.upload, data)
    monkeypatch.setattr(b, "matmul", full)
    monkeypatch.setattr(b, "matmul_with", full)
    step = gn.train.CapturedStep(
        gn.train.EagerStep(net, trainer.loss, gn.optim.SGD(net.parameters()))
    )
    for call in (
        lambda: net.predict(data[0]),
        lambda: trainer.predict(data[0]),
        lambda: step(x, y),
    ):
        with pytest.raises(OutOfMemoryError, match=r"no room \(.*smaller batch_size"):
            call()
