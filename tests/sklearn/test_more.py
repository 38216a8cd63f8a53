"""What the estimators do and scikit-learn's refuse, on every device."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

import gpunn as gn
from gpunn.errors import ArgumentError, DeviceUnavailableError, UnknownNameError
from gpunn.sklearn import MLPClassifier, MLPRegressor, from_sklearn, to_sklearn
from tests.sklearn.cases import assert_same, data, pair

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classifier(device="cpu", **options):
    given = {"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0, "batch_size": 32}
    return MLPClassifier(**{**given, "device": device, **options})


def regressor(device="cpu", **options):
    given = {"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0, "batch_size": 32}
    return MLPRegressor(**{**given, "device": device, **options})


# devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "outputs", "poisson"])
def test_a_device_has_the_numbers_of_the_cpu(task, solver, cuda_device):
    x, y = data(task)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(x))
    options = {"hidden_layer_sizes": (8, 5), "max_iter": 4, "solver": solver, "random_state": 0}
    options |= {"batch_size": 20, "activation": "logistic", "early_stopping": solver == "sgd"}
    host, device = pair(task, **options)
    device.set_params(device=cuda_device)
    for given in (None, weights):
        for model in (host, device):
            model.fit(x, y, sample_weight=given)
        for a, b in zip(host.coefs_, device.coefs_, strict=True):
            assert isinstance(b, np.ndarray)
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(device.loss_, host.loss_, rtol=1e-9)
        np.testing.assert_allclose(device.predict(x), host.predict(x), rtol=1e-8)
    assert "CuPy" in device.device_


def test_fitted_on_a_gpu_and_loaded_without_one(cuda_device, monkeypatch):
    x, y = data("multiclass")
    model = classifier(cuda_device).fit(x, y)
    text = pickle.dumps(model)
    expected = model.predict_proba(x)
    monkeypatch.setattr(
        "gpunn.sklearn.prediction.backend",
        lambda spec=None: gn.backend("cpu") if spec == "cpu" else unavailable(),
    )
    loaded = pickle.loads(text)
    with pytest.warns(UserWarning, match="predicting on the CPU: no GPU"):
        np.testing.assert_allclose(loaded.predict_proba(x), expected, rtol=1e-9)
    with pytest.raises(DeviceUnavailableError):
        loaded.fit(x, y)


def unavailable():
    raise DeviceUnavailableError("no GPU")


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "outputs"])
def test_device_arrays_in_device_arrays_out(task, cuda_device):
    b = gn.backend(cuda_device)
    x, y = data(task)
    kind = MLPRegressor if task in ("regression", "outputs") else MLPClassifier
    options = {"max_iter": 3, "random_state": 0, "hidden_layer_sizes": (6,)}
    host = kind(early_stopping=True, device="cpu", **options).fit(x, y)
    model = kind(early_stopping=True, **options).fit(b.upload(x), b.upload(y))
    for a, c in zip(host.coefs_, model.coefs_, strict=True):
        np.testing.assert_allclose(c, a, rtol=1e-9, atol=1e-10)
    methods = ["predict", "transform"]
    methods += ["predict_proba", "predict_log_proba"] if kind is MLPClassifier else []
    for name in methods:
        there, here = getattr(model, name)(b.upload(x)), getattr(host, name)(x)
        assert type(there) is b.xp.ndarray
        assert there.dtype == here.dtype
        np.testing.assert_allclose(b.download(there), here, rtol=1e-8, atol=1e-10)
        assert isinstance(getattr(model, name)(x), np.ndarray)
    assert model.score(b.upload(x), b.upload(y)) == pytest.approx(host.score(x, y))


def test_device_arrays_of_text_labels_and_in_pipelines(cuda_device):
    b = gn.backend(cuda_device)
    x, y = data("multiclass")
    names = np.array(["a", "b", "c", "d"])[y]
    both = make_pipeline(
        MLPRegressor(hidden_layer_sizes=(6,), max_iter=2, random_state=0), classifier(None)
    )
    both.fit(b.upload(x), y)
    assert type(both.predict(b.upload(x))) is b.xp.ndarray
    model = classifier(None).fit(b.upload(x), names)
    assert set(model.predict(b.upload(x))) <= set("abcd")  # no GPU has text
    bad = x.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(b.upload(bad))
    bad[0, 0] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity"):
        model.fit(b.upload(bad), names)
    with pytest.raises(ValueError, match="features"):
        model.predict(b.upload(x[:, :2]))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_precisions_are_captured_and_close(task, precision, cuda_device, caplog):
    x, y = data(task, "float32")
    make = regressor if task == "regression" else classifier
    some = {"max_iter": 20, "learning_rate_init": 0.01, "batch_size": 16}
    full = make(cuda_device, **some).fit(x, y)
    found = make(cuda_device, precision=precision, **some).fit(x, y)
    assert not caplog.records  # "training without CUDA graphs"
    assert found.coefs_[0].dtype == "float32"
    # float16 skips the first steps, until the loss scale fits gradients that are sums
    assert found.loss_ == pytest.approx(full.loss_, rel=0.3 if precision == "float16" else 0.05)
    with pytest.raises(ArgumentError, match="float32"):
        make("cpu", precision=precision).fit(x, y)


def test_arrays_of_other_libraries_are_read():
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    x, y = data("multiclass")
    model = classifier().fit(strict.asarray(x), strict.asarray(y))
    np.testing.assert_array_equal(model.predict(strict.asarray(x)), model.predict(x))


class OnCuda:
    """A CUDA array of a library that only the DLPack protocol reads, such as PyTorch."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array_namespace__(self):
        return np

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **request):
        shared = getattr(self.array, "__dlpack__", None)  # the stand-in's arrays have none
        return self.array if shared is None else shared(**request)


def test_cuda_arrays_of_other_libraries_are_read(cuda_device, monkeypatch):
    b = gn.backend(cuda_device)
    monkeypatch.setattr("gpunn.sklearn.device_input.backend", {"cuda": b}.get)
    x, y = data("multiclass")
    theirs, host = OnCuda(b.upload(x)), classifier().fit(x, y)
    found = classifier().fit(theirs, OnCuda(b.upload(y))).predict_proba(theirs)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, host.predict_proba(x))


def test_sparse_input_on_a_device(cuda_device):
    x, y = data("multiclass")
    rows = scipy.sparse.csr_array(np.where(np.abs(x) > 0.7, x, 0))
    host, device = classifier().fit(rows, y), classifier(cuda_device).fit(rows, y)
    np.testing.assert_allclose(device.predict_proba(rows), host.predict_proba(rows), rtol=1e-8)


# losses and penalties --------------------------------------------------------------------------


def test_losses_of_the_regressor_find_their_statistic(device):
    y = np.array([0.0, 0.0, 1.0, 2.0, 30.0])
    x = np.zeros((5, 1))
    some = {"hidden_layer_sizes": (), "max_iter": 150, "learning_rate_init": 0.1, "alpha": 0.0}
    some |= {"tol": 0.0, "n_iter_no_change": 150, "batch_size": 5}
    found = {
        loss: regressor(device, loss=loss, **some, **more).fit(x, y).predict(x[:1])[0]
        for loss, more in (
            ("absolute_error", {}),
            ("quantile", {"quantile": 0.7}),
            ("huber", {"huber_delta": 2.0}),
        )
    }
    assert found["absolute_error"] == pytest.approx(1.0, abs=0.1)
    assert found["quantile"] == pytest.approx(2.0, abs=0.1)
    assert found["huber"] == pytest.approx(1.25, abs=0.1)  # 3 - 4 p + 2 = 0: one point is far


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_hinge(task, device):
    x, y = data(task)
    model = classifier(device, loss="hinge", max_iter=40, learning_rate_init=0.02).fit(x, y)
    assert model.score(x, y) > (0.4 if task == "multilabel" else 0.8)
    assert model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]
    assert not hasattr(model, "predict_proba")
    scores = model.decision_function(x)
    assert scores.shape == ((len(x),) if task == "binary" else (len(x), scores.shape[1]))
    found = scores.argmax(1) if task == "multiclass" else scores > 0
    np.testing.assert_array_equal(found, model.predict(x))
    assert not hasattr(classifier(), "decision_function")


def test_class_weights_are_sample_weights(device):
    x, y = data("multiclass")
    labels = np.array(["a", "b", "c", "d"])[y]
    by_hand = np.array([1.0, 2.0, 0.5, 3.0])[y]
    weights = dict(zip("abcd", (1.0, 2.0, 0.5, 3.0), strict=True))
    more = np.random.default_rng(0).uniform(0.5, 1, len(y))
    for solver in ("adam", "lbfgs"):
        one = classifier(device, class_weight=weights, solver=solver).fit(x, labels, more)
        two = classifier(device, solver=solver).fit(x, labels, by_hand * more)
        np.testing.assert_allclose(one.coefs_[0], two.coefs_[0], rtol=1e-12)
    balanced = len(y) / (4 * np.bincount(y))
    one = classifier(device, class_weight="balanced").fit(x, y)
    two = classifier(device).fit(x, y, balanced[y])
    np.testing.assert_allclose(one.coefs_[0], two.coefs_[0], rtol=1e-12)
    with pytest.raises(ValueError, match="not supported for partial_fit"):
        classifier(class_weight="balanced").partial_fit(x, y, classes=np.arange(4))


def test_penalties(device):
    x, y = data("regression")
    some = {"max_iter": 10, "learning_rate_init": 0.03, "hidden_layer_sizes": (20,)}
    sizes = {}
    for name, options in {
        "none": {},
        "l1": {"l1": 0.1},
        "l2": {"l2": 0.1},
        "max_norm": {"max_norm": 0.3},
        "all": {"l1": 0.05, "l2": 0.05, "max_norm": 0.3},
    }.items():
        model = regressor(device, **some, **options).fit(x, y)
        sizes[name] = np.abs(model.coefs_[0]).sum()
        if "max_norm" in options:
            assert np.linalg.norm(model.coefs_[0], axis=0).max() <= 0.3 + 1e-12
    assert max(sizes["l1"], sizes["l2"], sizes["max_norm"]) < sizes["none"]


def test_l2_does_not_shrink_with_the_batch_size():
    x = np.repeat(data("regression")[0][:1], 64, axis=0)
    y = np.ones(64)
    some = {"hidden_layer_sizes": (), "shuffle": False, "solver": "sgd", "momentum": 0.0}
    some |= {"learning_rate_init": 0.05, "tol": 0.0, "n_iter_no_change": 10**9, "alpha": 0.0}

    def end(batch_size, **penalty):
        options = {**some, "batch_size": batch_size, "max_iter": 30 * batch_size, **penalty}
        return np.abs(regressor(**options).fit(x, y).coefs_[0]).sum()

    assert end(4, l2=0.2) == pytest.approx(end(16, l2=0.2), rel=1e-6)
    assert end(4, alpha=2.0) < 0.95 * end(16, alpha=2.0)


# networks --------------------------------------------------------------------------------------


def test_activations_by_layer(device):
    x, y = data("multiclass")
    model = classifier(device, hidden_layer_sizes=(6, 5), activation=["gelu", "logistic"])
    model.fit(x, y)
    hidden = gn.ops.gelu(gn.tensor(x @ model.coefs_[0] + model.intercepts_[0])).numpy()
    np.testing.assert_allclose(
        model.set_params(transform_layer=0).transform(x), hidden, rtol=1e-9, atol=1e-12
    )
    second = 1 / (1 + np.exp(-(hidden @ model.coefs_[1] + model.intercepts_[1])))
    np.testing.assert_allclose(model.set_params(transform_layer=-1).transform(x), second, rtol=1e-9)
    assert list(model.get_feature_names_out()) == [f"mlpclassifier{k}" for k in range(5)]
    with pytest.raises(ArgumentError, match=r"transform_layer=2.*-2 to 1"):
        model.set_params(transform_layer=2).transform(x)
    with pytest.raises(ArgumentError, match="for 1 hidden layers"):
        classifier(activation=["relu", "tanh"]).fit(x, y)
    with pytest.raises(UnknownNameError, match="swosh"):
        classifier(activation=["swosh"]).fit(x, y)
    named = classifier(activation=["swish"]).fit(x, y)
    np.testing.assert_array_equal(
        named.predict_proba(x), classifier(activation=["silu"]).fit(x, y).predict_proba(x)
    )


def test_dropout(device):
    x, y = data("multiclass")
    options = {"dropout": 0.5, "input_dropout": 0.2, "max_iter": 5}
    model = classifier(device, **options).fit(x, y)
    again = classifier("cpu", **options).fit(x, y)
    np.testing.assert_allclose(model.coefs_[0], again.coefs_[0], rtol=1e-9)  # the same masks
    other = classifier("cpu", **{**options, "random_state": 1}).fit(x, y)
    assert not np.allclose(other.coefs_[0], again.coefs_[0])
    plain = classifier("cpu", max_iter=5).fit(x, y)
    assert again.loss_curve_[-1] > plain.loss_curve_[-1]
    np.testing.assert_array_equal(again.predict_proba(x), again.predict_proba(x))
    theirs = to_sklearn(again)
    np.testing.assert_allclose(theirs.predict_proba(x), again.predict_proba(x), rtol=1e-12)
    with pytest.raises(ArgumentError, match=r"dropout with solver=.lbfgs"):
        classifier(dropout=0.5, solver="lbfgs").fit(x, y)


def test_optimizers_and_schedules(device):
    x, y = data("multiclass")
    by_name = classifier(device, optimizer="rmsprop", learning_rate_init=0.01).fit(x, y)
    by_object = classifier(device, optimizer=gn.optim.RMSprop(lr=0.01)).fit(x, y)
    np.testing.assert_array_equal(by_name.coefs_[0], by_object.coefs_[0])
    rates = []

    class Rates(gn.train.Callback):
        def on_epoch_end(self, trainer, epoch, history):
            rates.append(history["lr"][-1])

    model = classifier(device, schedule="cosine", callbacks=[Rates()], max_iter=5)
    model.fit(x, y)
    assert rates[0] > rates[2] > rates[4]
    assert not np.allclose(model.coefs_[0], classifier(device, max_iter=5).fit(x, y).coefs_[0])


# the course of a fit ---------------------------------------------------------------------------


def test_initialize_sets_everything_and_trains_nothing(device):
    x, y = data("multiclass")
    model = classifier(device).initialize(x, y)
    theirs = neural_network.MLPClassifier((8,), random_state=0, max_iter=1, batch_size=32)
    assert model.loss_curve_ == []
    assert model.n_iter_ == model.t_ == 0
    start = [w.copy() for w in model.coefs_]
    model.coefs_[1][:] = 0.0
    model.intercepts_[1][:] = [0, 0, 5, 0]
    assert set(model.predict(x)) == {2}
    one = classifier(device, max_iter=1).fit(x, y)
    with threadpool_limits(1):
        theirs.fit(x, y)
    np.testing.assert_allclose(one.coefs_[0], theirs.coefs_[0], rtol=1e-9)
    assert not np.allclose(one.coefs_[0], start[0], atol=1e-5)


def test_validation_loss_curve(device):
    x, y = data("multiclass")
    model = classifier(device, early_stopping=True, validation_curve=True, max_iter=6).fit(x, y)
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 6
    assert model.validation_loss_curve_[-1] < model.validation_loss_curve_[0]
    assert classifier(early_stopping=True).fit(x, y).validation_loss_curve_ is None


def test_early_stopping_in_partial_fit(device):
    x, y = data("multiclass")
    model = classifier(
        device, early_stopping=True, n_iter_no_change=3, tol=0.01, learning_rate_init=0.05
    )
    for _ in range(200):
        model.partial_fit(x[:70], y[:70], classes=np.arange(4), validation=(x[70:], y[70:]))
        if model.stopped_:
            break
    assert "Validation score did not improve" in model.stopped_
    assert len(model.validation_scores_) < 200
    assert model.score(x[70:], y[70:]) == model.best_validation_score_
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        model.partial_fit(x, y)
    with pytest.raises(ArgumentError, match="early_stopping=False"):
        regressor().partial_fit(x, y, validation=(x, y))


def test_warm_start_with_the_optimizers_state():
    x, y = data("multiclass")
    some = {"warm_start": True, "shuffle": False, "tol": 0.0}
    whole = classifier(**some, max_iter=6).fit(x, y)
    kept = classifier(**some, max_iter=3, keep_optimizer=True).fit(x, y)
    lost = classifier(**some, max_iter=3).fit(x, y).fit(x, y)
    text = pickle.dumps(kept)
    kept.fit(x, y)
    np.testing.assert_array_equal(kept.coefs_[0], whole.coefs_[0])
    np.testing.assert_array_equal(pickle.loads(text).fit(x, y).coefs_[0], whole.coefs_[0])
    assert not np.allclose(lost.coefs_[0], whole.coefs_[0])


@pytest.mark.parametrize("early", [False, True])
def test_a_fit_that_was_killed_goes_on(early, tmp_path):
    x, y = data("multiclass")
    options = {"max_iter": 9, "early_stopping": early, "dropout": 0.3, "solver": "sgd"}
    options |= {"learning_rate": "invscaling"}
    whole = classifier(**options).fit(x, y)

    class Dies(gn.train.Callback):
        def __init__(self, at):
            self.at = at

        def on_epoch_end(self, trainer, epoch, history):
            if epoch == self.at:
                raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        classifier(**options, checkpoint=tmp_path, callbacks=[Dies(5)]).fit(x, y)
    resumed = classifier(**options, checkpoint=tmp_path, callbacks=[Dies(50)]).fit(x, y)
    assert_same(whole, resumed, x)


class Listens:
    """A callback of scikit-learn's protocol that stops after `at` epochs."""

    def __init__(self, at):
        self.at, self.scores, self.calls = at, [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X, y):
        self.x, self.y = X, y
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.calls.append(f"end {context.task_name}")
        if context.task_name != "epoch":
            return False
        self.scores.append(fitted_estimator.score(self.x, self.y))
        return len(self.scores) == self.at


def test_callbacks_of_scikit_learn():
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    x, y = data("multiclass")
    listener = Listens(3)
    model = classifier(max_iter=50, learning_rate_init=0.01).set_callbacks(listener).fit(x, y)
    assert model.n_iter_ == len(listener.scores) == 3
    assert listener.scores[-1] == model.score(x, y)
    assert listener.calls[:3] == ["setup", "begin fit", "begin epoch"]
    assert listener.calls[-3:] == ["end epoch", "end fit", "teardown"]
    assert listener.calls.count("begin epoch") == 3


# exchange --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "poisson"])
def test_to_scikit_learn_and_back(task, solver):
    x, y = data(task)
    theirs, ours = pair(task, max_iter=5, random_state=0, hidden_layer_sizes=(5,), solver=solver)
    with threadpool_limits(1):
        theirs.fit(x, y)
        ours.fit(x, y)
    taken = from_sklearn(theirs, dropout=0.1)
    assert_same(theirs, taken, x)
    assert taken.dropout == 0.1
    back = to_sklearn(ours)
    assert type(back) is type(theirs)
    assert_same(theirs, back, x)
    assert clone(back).get_params() == theirs.get_params()
    assert not np.shares_memory(back.coefs_[0], ours.coefs_[0])
    if solver == "adam" and task != "multilabel":
        taken.partial_fit(x, y)
        back.partial_fit(x, y)


def test_what_scikit_learn_cannot_predict_is_refused():
    for options in ({"activation": "gelu"}, {"loss": "hinge"}, {"activation": ["relu", "tanh"]}):
        with pytest.raises(ArgumentError, match="expected"):
            to_sklearn(MLPClassifier(**options))
    assert to_sklearn(MLPRegressor("huber")).loss == "squared_error"
    with pytest.raises(ArgumentError, match="MLPClassifier"):
        from_sklearn(MLPClassifier())


def outcome(model, method, x):
    """What a call returns, warns and raises."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = repr(getattr(model, method)(x).tolist())
        except ValueError as error:
            found = type(error), str(error)
    return found, [str(each.message).replace("gpunn.", "") for each in told]


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("frame", [False, True])
def test_plain_arrays_pass_and_fail_as_in_scikit_learn(method, frame):
    """They take a short way around its checks."""
    x, y = data("multiclass")
    given = pytest.importorskip("pandas").DataFrame(x).rename(columns=str) if frame else x
    theirs, ours = pair("multiclass", max_iter=3, random_state=0, hidden_layer_sizes=(5,))
    with threadpool_limits(1):
        theirs.fit(given, y)
        ours.fit(given, y)
        cases = {"whole": x, "one": x[:1], "none": x[:0], "narrow": x[:, 1:], "flat": x[0]}
        cases |= {
            "large": np.full_like(x, 1e308),
            "order": np.asfortranarray(x),
            "list": x.tolist(),
        }
        for wrong in (np.nan, np.inf, -np.inf):
            cases[str(wrong)] = x.copy()
            cases[str(wrong)][3, 1] = wrong
        cases["both"] = x.copy()
        cases["both"][:2, 0] = np.inf, -np.inf
        cases["cube"], cases["int"] = x[:, :, np.newaxis], (9 * x).astype(int)
        for name, case in cases.items():
            expected, found = outcome(theirs, method, case), outcome(ours, method, case)
            assert found == expected, name
