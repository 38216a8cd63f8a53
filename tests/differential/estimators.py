"""Random sequences of calls on scikit-learn's estimators and on gpunn's: the same bits."""

from __future__ import annotations

import pickle
import warnings
from copy import deepcopy
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.sklearn.cases import ROWS, data, pair

TASKS = ("binary", "multiclass", "multilabel", "regression", "outputs", "poisson")
CHOICES: dict[str, list[Any]] = {
    "hidden_layer_sizes": [(), (3,), (4, 2)],
    "activation": ["relu", "tanh", "logistic", "identity"],
    "solver": ["adam", "sgd", "lbfgs"],
    "alpha": [0.0, 1e-4, 0.5],
    "batch_size": ["auto", 10, 33, ROWS],
    "learning_rate": ["constant", "invscaling", "adaptive"],
    "learning_rate_init": [1e-3, 0.02],
    "power_t": [0.5, 0.2],
    "max_iter": [1, 4, 9],
    "shuffle": [True, False],
    "random_state": [0, 1, 2],
    "tol": [1e-4, 1e-2, 0.5],
    "warm_start": [True, False],
    "momentum": [0.0, 0.9],
    "nesterovs_momentum": [True, False],
    "early_stopping": [True, False],
    "validation_fraction": [0.1, 0.3],
    "beta_1": [0.9, 0.5],
    "beta_2": [0.999, 0.9],
    "epsilon": [1e-8, 1e-3],
    "n_iter_no_change": [1, 3, 10],
}
CALLS = (
    "fit",
    "fit",
    "partial_fit",
    "set_params",
    "set_params",
    "copy",
    "pickle",
    "write",
    "predict",
)


def draw(rng: np.random.Generator, name: str) -> Any:
    """Draw a value of a parameter."""
    return CHOICES[name][int(rng.integers(len(CHOICES[name])))]


def outcome(call: Any) -> Any:
    """Call, and return the result, or the type and the words of the error."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__, str(error)[:60]


def act(model: Any, name: str, task: str, given: dict[str, Any]) -> Any:
    """Do one call on an estimator, and return the estimator and what there is to compare."""
    x, y = data(task, given["dtype"])
    weights = given["weights"]
    if name == "fit":
        return model, outcome(lambda: model.fit(x, y, sample_weight=weights) and None)
    if name == "partial_fit":
        more = {} if "Regressor" in type(model).__name__ else {"classes": np.unique(y)}
        if task == "multilabel":
            more = {"classes": np.arange(3)}
        part = given["rows"]
        w = None if weights is None else weights[part]
        return model, outcome(lambda: model.partial_fit(x[part], y[part], w, **more) and None)
    if name == "set_params":
        model.set_params(**{given["name"]: given["value"]})
        return model, None
    if name == "copy":
        return deepcopy(model), None
    if name == "pickle":
        return pickle.loads(pickle.dumps(model)), None
    if name == "write" and hasattr(model, "coefs_"):
        model.coefs_[0][0] += 0.25
        return model, None
    return model, outcome(lambda: model.predict(x[given["rows"]]))


def accident(result: Any) -> bool:
    """Return whether scikit-learn failed from within: a fit went on with other layers."""
    return isinstance(result, tuple) and result[0] in ("AttributeError", "IndexError", "TypeError")


def refusal(result: Any) -> bool:
    """Return whether gpunn refused to go on with other layers."""
    return isinstance(result, tuple) and result[1].startswith("got hidden_layer_sizes=")


def same(a: Any, b: Any, name: str) -> None:
    """Check that two attributes have the same bits."""
    if isinstance(a, list):
        assert len(a) == len(b), name
        for one, other in zip(a, b, strict=True):
            same(one, other, name)
    else:
        np.testing.assert_equal(b, a, err_msg=name)


ATTRIBUTES = (
    *("coefs_", "intercepts_", "loss_curve_", "validation_scores_", "loss_", "best_loss_"),
    *("best_validation_score_", "n_iter_", "t_", "n_layers_", "out_activation_"),
)


def check(seed: int, device: str = "cpu") -> None:
    """Do the same random calls on both estimators, and compare after each.

    Raises:
        AssertionError: an attribute, a prediction or an error differs; the message has the calls.
    """
    rng = np.random.default_rng(seed)
    task = str(rng.choice(TASKS))
    some = rng.choice([*CHOICES], int(rng.integers(2, 9)), replace=False).tolist()
    options = {"hidden_layer_sizes": (3,), "max_iter": 4, "random_state": 0}
    options |= {str(name): draw(rng, str(name)) for name in some}
    models = pair(task, **options)
    dtype = "float64"
    said = [f"{task} {options}"]
    for _ in range(int(rng.integers(2, 8))):
        name = str(rng.choice(CALLS))
        changed = str(rng.choice([*CHOICES]))
        given = {
            "dtype": dtype,
            "weights": rng.uniform(0.1, 2, ROWS) if rng.random() < 0.3 else None,
            "rows": np.sort(rng.choice(ROWS, int(rng.integers(30, ROWS)), replace=False)),
            "name": changed,
            "value": draw(rng, changed),
        }
        said.append(f"{name} {given['name']}={given['value']}" if "set" in name else name)
        with warnings.catch_warnings(), np.errstate(all="ignore"), threadpool_limits(1):
            warnings.simplefilter("ignore")
            results = [act(model, name, task, given) for model in models]
        models = [model for model, _ in results]
        words = "; ".join(said)
        if accident(results[0][1]) and refusal(results[1][1]):
            return
        same(results[0][1], results[1][1], words)
        for attribute in ATTRIBUTES:
            there = [hasattr(model, attribute) for model in models]
            assert there[0] == there[1], f"{attribute} after {words}"
            if there[0]:
                values = [getattr(model, attribute) for model in models]
                same(*values, f"{attribute} after {words}")
