"""Recorded steps of which one breaks: which it is, and what the others did."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import DivergenceError
from gpunn.nn.observation import observe
from gpunn.train.trouble import divergence, undisturbed

pytestmark = [pytest.mark.both_bodies, pytest.mark.fast]


@pytest.fixture
def data(rng):
    """Examples that break a network at row 700, and their labels."""
    x = rng.standard_normal((1700, 6), dtype=np.float32)
    x[700] = 3e38
    return x, rng.integers(0, 4, 1700)


def broken(data, capture, batch_size):
    gn.manual_seed(0)  # where all that is infinite is dropped, nothing breaks
    model = nn.Sequential(nn.Linear(6, 8, "relu"), nn.Dropout(0.1), nn.Linear(8, 4))
    trainer = gn.Trainer(model, capture=capture)
    options = {"epochs": 1, "shuffle": False, "progress": False}
    with pytest.raises(DivergenceError) as error:
        trainer.fit(*data, batch_size=batch_size, **options)
    return trainer, str(error.value)


@pytest.mark.parametrize("batch_size", [3, 4, 16, 200, 500])
def test_the_step_that_broke_is_named_wherever_it_is(data, batch_size):
    trainer, words = broken(data, True, batch_size)
    assert f"step {700 // batch_size + 1} of epoch 1" in words
    assert trainer.steps == 700 // batch_size  # the broken step did not happen


@pytest.mark.parametrize("capture", [True, False])
def test_a_broken_step_is_the_last_that_draws(data, capture):
    trainer, _ = broken(data, capture, 4)
    assert [stream.call for stream in trainer.model.streams()] == [700 // 4 + 1]


def test_an_infinite_unit_that_the_next_mask_drops_is_found():
    gn.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8, "relu"), nn.Dropout(0.5), nn.Linear(8, 2))
    model[0].weight.data[...] = 1
    x, outputs = np.full((1, 1), 10, np.float32), []
    with undisturbed(model), observe(lambda module, y: outputs.append(y.numpy())):
        model(x)
    model[0].weight.data[0, outputs[0].argmin()] = 3e38
    with undisturbed(model), np.errstate(all="ignore"):
        assert np.isfinite(model(x).numpy()).all()  # the next mask drops the infinite unit
    assert "the output of layer '0' (Linear)" in divergence(model, x, np.inf)
