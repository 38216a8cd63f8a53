"""Models that train at the same time have the bits of fits of their own."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.distributed import fit_together, on_threads
from gpunn.errors import ArgumentError, DataError
from gpunn.train import EarlyStopping

X = np.random.default_rng(0).standard_normal((120, 5)).astype(np.float32)
Y = np.arange(120) % 3


def trainers(device="cpu"):
    """Members that differ in seed, width, rate of dropout, optimizer and schedule."""
    found = []
    for k in range(4):
        net = nn.Sequential(
            nn.Linear(5, 8 + 4 * k, "relu", seed=k),
            nn.Dropout(0.1 * k),
            nn.BatchNorm(8 + 4 * k),
            nn.Linear(8 + 4 * k, 3, seed=9 + k),
        ).to(device)
        rule = gn.optim.get_optimizer(["adam", "sgd", "adamw", "rmsprop"][k], lr=0.01 * (k + 1))
        found.append(
            gn.Trainer(net, optimizer=rule, seed=k, schedule=["constant", "cosine"][k % 2])
        )
    return found


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_each_has_the_bits_of_its_own_fit(threads, device):
    options = {"epochs": 4, "batch_size": 16, "validation": (X, Y)}
    found, alone = trainers(device), trainers(device)
    histories = fit_together(found, X, Y, threads=threads, **options)
    for ours, theirs, history in zip(found, alone, histories, strict=True):
        expected = on_threads([lambda t=theirs: t.fit(X, Y, progress=False, **options)], 1)[0]
        assert history["loss"] == expected["loss"]
        assert history["val_loss"] == expected["val_loss"]
        for name, value in theirs.model.state_dict().items():
            np.testing.assert_array_equal(ours.model.state_dict()[name], value)


def test_one_stops_before_the_others():
    found = trainers()
    stops = [EarlyStopping(patience=2, min_delta=9 * (k == 1)) for k in range(4)]
    jobs = [
        lambda t=t, s=s: t.fit(X, Y, epochs=8, validation=(X, Y), callbacks=[s], progress=False)
        for t, s in zip(found, stops, strict=True)
    ]
    assert on_threads(jobs, 2)[1].epochs < 8


def test_one_model_is_not_trained_by_two():
    trainer = trainers()[0]
    with pytest.raises(ArgumentError, match="several trainers of one model"):
        fit_together([trainer, gn.Trainer(trainer.model)], X, Y)


def test_the_first_error_is_raised_and_the_rest_left_out():
    told = []
    with pytest.raises(DataError, match="nan"):
        fit_together(trainers(), np.full_like(X, np.nan), Y, threads=2)

    def wrong():
        raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        on_threads([wrong, *[lambda: told.append(1)] * 200], 2, lambda: told.append("stop"))
    assert "stop" in told
