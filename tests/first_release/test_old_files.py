"""Pickles and skops files that the first release wrote still load, and give the same numbers."""

from __future__ import annotations

import pickle
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn.moved import MOVED

DATA = Path(__file__).parent / "data"
X = np.load(DATA / "x.npy")
TRUSTED = {
    "classifier": ["gpunn.sklearn.classifier.MLPClassifier"],
    "classifier_options": [
        "gpunn.optim.rules.AdamW",
        "gpunn.optim.schedules.Cosine",
        "gpunn.sklearn.classifier.MLPClassifier",
    ],
    "regressor": ["gpunn.sklearn.regressor.MLPRegressor"],
    "regressor_sgd": ["gpunn.sklearn.regressor.MLPRegressor"],
}


assert_same = partial(np.testing.assert_allclose, rtol=1e-9)  # another BLAS rounds otherwise


def unpickled(name):
    return pickle.loads((DATA / f"{name}.pkl").read_bytes())


@pytest.mark.parametrize("path", sorted(DATA.glob("*.pkl")), ids=lambda p: p.stem)
def test_a_pickle_loads(path):
    assert pickle.loads(path.read_bytes()) is not None


@pytest.mark.parametrize("name", TRUSTED)
def test_an_estimator_predicts_as_it_did(name):
    assert_same(unpickled(name).predict(X), np.load(DATA / f"{name}.npy"))


@pytest.mark.parametrize("name", TRUSTED)
def test_a_skops_file_loads_with_the_names_of_then(name):
    sio = pytest.importorskip("skops.io", reason="skops is not installed")
    found = sio.load(DATA / f"{name}.skops", trusted=TRUSTED[name])
    assert_same(found.predict(X), np.load(DATA / f"{name}.npy"))


def test_a_network_predicts_as_it_did():
    expected = np.load(DATA / "network.npy")
    found = unpickled("network").predict(X.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_trained_keeps_its_settings():
    assert unpickled("trainer").seed == 0
    assert len(unpickled("history")["loss"]) == 2
    assert unpickled("optimizer_adam").beta1 == 0.9
    assert isinstance(unpickled("optimizer_adamw"), gn.optim.AdamW)


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_gives_what_is_in_the_new_ones(old):
    module = import_module(f"gpunn.{old}")
    for place in MOVED[old]:
        new = import_module(f"gpunn.{place}")
        own = [n for n, v in vars(new).items() if getattr(v, "__module__", "") == new.__name__]
        assert all(getattr(module, name) is getattr(new, name) for name in own)
    with pytest.raises(AttributeError, match=f"gpunn.{old}.*'nothing'"):
        module.nothing  # noqa: B018
