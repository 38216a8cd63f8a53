"""Batches that somebody else makes, and a last batch that is left out."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ArgumentError, DataError, DivergenceError

pytestmark = pytest.mark.fast

X = np.random.default_rng(0).normal(size=(45, 6)).astype(np.float32)
T = X[:, :2] - X[:, 2:4]
W = np.arange(45) % 3


def network(device="cpu"):
    return nn.Sequential(
        nn.Linear(6, 5, "tanh", seed=1, device=device),
        nn.Dropout(0.2),
        nn.Linear(5, 2, seed=2, device=device),
    )


def parts(*arrays, size=10):
    return [tuple(a[at : at + size] for a in arrays) for at in range(0, len(arrays[0]), size)]


class Loader:
    """What a loader of another library looks like: a length, and a new iterator each time."""

    def __init__(self, *arrays):
        self.parts = parts(*arrays)

    def __len__(self):
        return len(self.parts)

    def __iter__(self):
        return iter([list(part) for part in self.parts])


def endless(*arrays):
    while True:
        yield from parts(*arrays)


def fit(*data, device="cpu", epochs=4, callbacks=(), trainer=None, **options):
    given = {
        name: options.pop(name) for name in ("steps_per_epoch", "validation") if name in options
    }
    given |= {"drop_last": True} if options.pop("drop_last", False) else {}
    given |= {"sample_weight": options.pop("sample_weight")} if "sample_weight" in options else {}
    trainer = trainer or gn.Trainer(
        network(device), "squared_error", optim.Adam(lr=0.01), schedule="cosine", seed=0, **options
    )
    if len(data) != 1:
        given |= {"batch_size": 10, "shuffle": False}
    history = trainer.fit(*data, epochs=epochs, callbacks=list(callbacks), progress=False, **given)
    return [p.numpy() for p in trainer.model.parameters()], history


def same(ours, theirs):
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(ours[1]["loss"], theirs[1]["loss"], rtol=1e-12)


# an iterable of batches ---------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["auto", False])
@pytest.mark.parametrize("made", ["list", "loader", "generator"])
@pytest.mark.parametrize("shards", [None, 2])
def test_the_bits_of_the_same_batches_of_arrays(made, device, capture, shards):
    options = {"device": device, "validation": (X, T), "shards": shards}
    expected = fit(X, T, capture=False, **options)
    batches = {"list": parts, "loader": Loader, "generator": endless}[made](X, T)
    steps = {"steps_per_epoch": 5} if made == "generator" else {}
    same(fit(batches, capture=capture, **steps, **options), expected)


def test_weights_come_with_batches(device):
    expected = fit(X, T, device=device, sample_weight=W)
    same(fit(Loader(X, T, W), device=device), expected)


def test_half_an_epoch_of_a_loader(device):
    found = fit(Loader(X, T), device=device, steps_per_epoch=2)
    same(found, fit(X[:20], T[:20], device=device))


@pytest.mark.parametrize("end", [2, 0])
def test_a_killed_run_goes_on_with_the_next_batch(tmp_path, end, monkeypatch):
    whole = fit(Loader(X, T))
    begun, usual = [], Loader.__iter__

    def stopping(loader):
        begun.append(0)
        for k, part in enumerate(usual(loader)):
            if len(begun) == 3 and k == end:
                signal.raise_signal(signal.SIGINT)
            yield part

    monkeypatch.setattr(Loader, "__iter__", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(Loader(X, T), checkpoint=tmp_path)
    monkeypatch.undo()
    same(fit(Loader(X, T), checkpoint=tmp_path), whole)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_same_arrays_come_again(device, count):
    size = 10 * count
    expected = fit(X[:size], T[:size], device=device, capture=False)
    same(fit(parts(X[:size], T[:size]), device=device), expected)


def test_other_batches_are_another_run(tmp_path):
    fit(Loader(X, T), checkpoint=tmp_path)
    with pytest.raises(gn.GpunnError, match=r"data\.x"):
        fit(parts(X, T), checkpoint=tmp_path)


def test_a_broken_batch_is_named(device):
    t = T.copy()
    t[13] = 1e30
    with pytest.raises(DivergenceError, match="step 2 of epoch 1"), np.errstate(all="ignore"):
        fit(Loader(X, t), device=device)


def test_bad_batches(device):
    with pytest.raises(DataError, match="got 5 batches from a Loader; expected 6"):
        fit(Loader(X, T), device=device, steps_per_epoch=6)
    with pytest.raises(DataError, match="nan"):
        fit([(np.full_like(X, np.nan), T)], device=device)
    with pytest.raises(DataError, match="expected \\(x, y\\)"):
        fit(iter([X]), device=device, steps_per_epoch=1)
    with pytest.raises(gn.errors.ShapeError, match="same number of rows"):
        fit([(X[:5], T[:4])], device=device)


def test_what_needs_arrays(tmp_path):
    with pytest.raises(ArgumentError, match="pass steps_per_epoch"):
        fit(endless(X, T))
    with pytest.raises(ArgumentError, match="got sample_weight with batches from a Loader"):
        fit(Loader(X, T), sample_weight=W)
    with pytest.raises(ArgumentError, match="drop_last"):
        fit(Loader(X, T), drop_last=True)
    with pytest.raises(ArgumentError, match="begin anew"):
        fit(endless(X, T), steps_per_epoch=5, checkpoint=tmp_path)
    with pytest.raises(ArgumentError, match="steps_per_epoch=5 with examples"):
        fit(X, T, steps_per_epoch=5)


@pytest.mark.parametrize("x", [X, X.tolist(), {"x": X}, "text", 3])
def test_examples_without_targets_are_no_batches(x):
    with pytest.raises(gn.GpunnError, match="expected"):
        gn.Trainer(network(), "squared_error").fit(x, progress=False)


# the last batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ["auto", False])
def test_a_smaller_last_batch_may_be_left_out(device, capture):
    expected = fit(X[:40], T[:40], device=device, capture=False)
    same(fit(X, T, device=device, capture=capture, drop_last=True), expected)


def test_each_epoch_leaves_out_others():
    trainer = gn.Trainer(network(), "squared_error", seed=0)
    history = trainer.fit(X, T, epochs=3, batch_size=10, drop_last=True, progress=False)
    assert trainer.steps == 12
    assert len(history["loss"]) == 3


def test_more_rows_than_a_batch_are_needed():
    with pytest.raises(ArgumentError, match="leaves no batch"):
        gn.Trainer(network(), "squared_error").fit(
            X, T, batch_size=64, drop_last=True, progress=False
        )


def test_leaving_out_is_another_run(tmp_path):
    fit(X, T, checkpoint=tmp_path)
    with pytest.raises(gn.GpunnError, match="drop_last"):
        fit(X, T, checkpoint=tmp_path, drop_last=True)
