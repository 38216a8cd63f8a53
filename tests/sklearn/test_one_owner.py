"""The weights of an estimator have one owner: a prediction copies none and changes none."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import tracemalloc

import joblib
import numpy as np
import pytest
from sklearn import neural_network

import gpunn as gn
from gpunn.nn import Module
from gpunn.sklearn import MLPClassifier, MLPRegressor, from_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

D, H = 40, 128
WEIGHT_BYTES = 8 * H * H  # of the largest weight


def data(rows=120):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, D)), rng.integers(0, 3, rows)


def fitted(**options):
    options = {"max_iter": 2, "random_state": 0} | options
    return MLPClassifier((H, H), **options).fit(*data())


def theirs(**options):
    x, y = data()
    return neural_network.MLPClassifier((H, H), max_iter=2, random_state=0, **options).fit(x, y)


def mapped(path, **options):
    joblib.dump(fitted(), path / "model")
    return joblib.load(path / "model", **options)


def through_skops(path):
    skops = pytest.importorskip("skops.io")
    text = skops.dumps(fitted())
    return skops.loads(text, trusted=skops.get_untrusted_types(data=text))


def other_dtype(path):
    model = fitted()
    model.coefs_[1] = model.coefs_[1].astype(np.float32)
    return model


def turned(path):
    model = fitted()
    model.coefs_[1] = np.asfortranarray(model.coefs_[1])
    return model


WAYS = {
    "fit": lambda path: fitted(),
    "pickle": lambda path: pickle.loads(pickle.dumps(fitted())),
    "joblib": mapped,
    "joblib, mapped": lambda path: mapped(path, mmap_mode="r"),
    "deepcopy": lambda path: copy.deepcopy(fitted()),
    "skops": through_skops,
    "from_sklearn": lambda path: from_sklearn(theirs()),
    "from_sklearn, lbfgs": lambda path: from_sklearn(theirs(solver="lbfgs")),
    "early stopping": lambda path: fitted(early_stopping=True, max_iter=6, n_iter_no_change=2),
    "partial_fit": lambda path: fitted().partial_fit(*data(20)),
    "pickle, partial_fit": lambda path: pickle.loads(pickle.dumps(fitted())).partial_fit(*data(20)),
    "lbfgs": lambda path: fitted(solver="lbfgs"),
    "initialize": lambda path: MLPClassifier((H, H)).initialize(*data()),
    "another dtype": other_dtype,
    "another order": turned,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_prediction_copies_no_weights(way, tmp_path, monkeypatch):
    model, (x, _) = WAYS[way](tmp_path), data(3)
    model.predict(x)
    copied, b = [], type(gn.backend("cpu"))
    for name in ("upload", "write", "download", "cast", "copy_to"):
        real = getattr(b, name)

        def spied(self, *args, real=real):
            copied.append(max(a.nbytes for a in args if hasattr(a, "nbytes")))
            return real(self, *args)

        monkeypatch.setattr(b, name, spied)
    tracemalloc.start()
    try:
        model.predict(x)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for use in (model.predict, model.predict_proba, model.transform):
            use(x)
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert max(copied, default=0) < WEIGHT_BYTES / 10
    assert taken < WEIGHT_BYTES / 2


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_are_those_of_the_attributes(way, tmp_path):
    model, (x, _) = WAYS[way](tmp_path), data(30)
    hidden = x
    for w, b in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ w + b, 0)
    np.testing.assert_allclose(model.transform(x), hidden, rtol=1e-6, atol=1e-9)


def walks(work, monkeypatch):
    """Count the walks over a network's modules while work is done."""
    count, real = [], Module.named_modules
    with monkeypatch.context() as patch:
        patch.setattr(
            Module, "named_modules", lambda self, *args: count.append(self) or real(self, *args)
        )
        work()
    return len(count)


def test_a_prediction_walks_once_over_the_modules(monkeypatch):
    x = data(3)[0].astype(np.float32)
    net = gn.nn.Sequential(*[gn.nn.Linear(D, D, "relu") for _ in range(5)])
    assert walks(lambda: net.predict(x), monkeypatch) == 1
    trainer = gn.Trainer(net)
    assert walks(lambda: trainer.predict(x), monkeypatch) == 2
    assert walks(lambda: net.predict(np.tile(x, (40, 1)), batch_size=4), monkeypatch) == 1
    for model in (fitted(), pickle.loads(pickle.dumps(fitted()))):
        model.predict(x)
        assert walks(lambda model=model: model.predict(x), monkeypatch) == 1


def regressor(device):
    x, y = data()
    options = {"max_iter": 2, "random_state": 0, "device": device}
    return MLPRegressor(hidden_layer_sizes=(8,), **options).fit(x, y)


@pytest.mark.parametrize("fresh", [False, True])
def test_weights_that_a_user_sets_are_used(fresh, device):
    model, (x, _) = regressor(device), data(5)
    model = pickle.loads(pickle.dumps(model)) if fresh else model
    model.predict(x)
    model.coefs_[1] = np.zeros_like(model.coefs_[1])
    model.intercepts_ = [model.intercepts_[0], np.array([7.0])]
    np.testing.assert_array_equal(model.predict(x), np.full(5, 7.0))
    model.partial_fit(*data(20))
    assert not np.allclose(model.predict(x), 7.0)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_write_into_an_array_is_seen_or_refused(fresh, device):
    model, (x, _) = regressor(device), data(5)
    model = pickle.loads(pickle.dumps(model)) if fresh else model
    before = model.predict(x)
    if gn.backend(device).on_host:
        model.coefs_[1][:] = 0
        np.testing.assert_allclose(model.predict(x), model.intercepts_[1][0])
        return
    with pytest.raises(ValueError, match="read-only"):
        model.coefs_[1][:] = 0
    np.testing.assert_array_equal(model.predict(x), before)


def test_a_prediction_with_other_weights_leaves_the_network_of_a_fit_alone(device):
    """As in a thread that has read the attributes before an epoch set them."""
    model, (x, y) = regressor(device), data()
    earlier = model.coefs_, model.intercepts_
    earlier = tuple([w.copy() for w in part] for part in earlier)
    want = model.predict(x)
    model.partial_fit(x, y)
    trained = {name: w.tobytes() for name, w in model._network.model.state_dict().items()}
    model.coefs_, model.intercepts_ = earlier
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-12)
    now = {name: w.tobytes() for name, w in model._network.model.state_dict().items()}
    assert now == trained


def together(works):
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        try:
            start.wait(60)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("way", ["fit", "pickle", "from_sklearn", "early stopping"])
def test_threads_predict_the_same(way, tmp_path):
    model, (x, _) = WAYS[way](tmp_path), data(30)
    want = copy.deepcopy(model).predict_proba(x)
    weights = [w.tobytes() for w in (*model.coefs_, *model.intercepts_)]

    def work():
        for _ in range(5):
            np.testing.assert_array_equal(model.predict_proba(x), want)

    together([work] * 8)
    assert [w.tobytes() for w in (*model.coefs_, *model.intercepts_)] == weights
    found = joblib.Parallel(n_jobs=4, prefer="threads")(
        joblib.delayed(model.predict_proba)(x) for _ in range(8)
    )
    assert all(np.array_equal(one, want) for one in found)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("options", [{}, {"early_stopping": True, "warm_start": True}])
def test_a_fit_is_not_disturbed_by_threads_that_predict(options, fresh):
    x, y = data()

    def work(others):
        given = {"max_iter": 3, "random_state": 0, "batch_size": 30} | options
        model = MLPClassifier((16,), **given).fit(x, y)
        model = pickle.loads(pickle.dumps(model)) if fresh else model
        over = threading.Event()

        def fit():
            try:
                for _ in range(4):
                    (model.fit if options else model.partial_fit)(x, y)
            finally:
                over.set()

        def predict():
            while not over.is_set():
                model.predict(x[:20])

        together([fit, *[predict] * others])
        return [w.tobytes() for w in (*model.coefs_, *model.intercepts_)], model.predict_proba(x)

    alone, crowded = work(0), work(3)
    assert alone[0] == crowded[0]
    np.testing.assert_array_equal(alone[1], crowded[1])
