"""The progress bar: what it shows, and that nobody pays for one that is not wanted."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn


def fit(progress):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
    trainer = gn.Trainer(nn.Sequential(nn.Linear(3, 2)), optimizer="sgd")
    return trainer.fit(x, (x[:, 0] > 0).astype(int), epochs=2, batch_size=8, progress=progress)


def test_a_bar_tells_epochs_steps_and_loss(capsys):
    history = fit(progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2 on cpu" in shown
    assert "6/6" in shown
    assert f"loss={history['loss'][-1]:.4g}" in shown


def test_without_a_bar_tqdm_is_not_imported(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(fit(progress=False)["loss"]) == 2
    assert not capsys.readouterr().err
    with pytest.raises(ImportError):
        fit(progress=True)
