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
    y = (x[:, 0] > 0).astype(int)
    options = {"epochs": 2, "batch_size": 8, "validation": (x, y), "progress": progress}
    return trainer.fit(x, y, **options)


def test_a_bar_tells_the_epoch_and_the_numbers(capsys):
    history = fit(progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2 100%" in shown
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        assert f" {name}={history[name][-1]:.4g}" in shown


def test_the_numbers_have_room_in_a_narrow_terminal(monkeypatch):
    """A line of 80 characters, in which tqdm's own bar leaves no room for the validation."""
    import tqdm

    lines = []

    class Narrow(tqdm.tqdm):
        def __init__(self, *args, **options):
            options.pop("dynamic_ncols")
            super().__init__(*args, ncols=80, **options)

        def display(self, msg=None, pos=None):
            lines.append(str(self))

    monkeypatch.setattr(tqdm, "tqdm", Narrow)
    history = fit(progress=True)
    assert len(lines[-1]) <= 80
    for name in ("loss", "val_loss", "val_accuracy"):
        assert f"{name}={history[name][-1]:.4g}," in lines[-1]


def test_without_a_bar_tqdm_is_not_imported(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(fit(progress=False)["loss"]) == 2
    assert not capsys.readouterr().err
    with pytest.raises(ImportError):
        fit(progress=True)
