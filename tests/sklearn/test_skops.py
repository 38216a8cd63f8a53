"""Estimators in skops files: what a reader must trust, and that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpunn as gn
from tests.sklearn.cases import assert_same, data, pair

sio = pytest.importorskip("skops.io", reason="skops is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

OWN = {
    "multiclass": "gpunn.sklearn.classifier.MLPClassifier",
    "regression": "gpunn.sklearn.regressor.MLPRegressor",
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"solver": "lbfgs"},
        {"early_stopping": True, "validation_curve": True},
        {"random_state": np.random.RandomState(3)},
        {"activation": ["gelu"], "optimizer": "adamw"},
        {"dropout": 0.3, "schedule": "cosine"},
    ],
    ids=["plain", "sgd", "lbfgs", "early_stopping", "random_state", "gelu_adamw", "dropout"],
)
@pytest.mark.parametrize("task", OWN)
def test_nothing_but_the_estimator_is_to_be_trusted(task, options):
    x, y = data(task)
    given = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0, **options}
    with threadpool_limits(1):
        model = pair(task)[1].set_params(**given).fit(x, y)
        content = sio.dumps(model)
        assert sio.get_untrusted_types(data=content) == [OWN[task]]
        with pytest.raises(Exception, match="Untrusted types found"):
            sio.loads(content)
        again = sio.loads(content, trusted=[OWN[task]])
        assert_same(model, again, x)
        if {"early_stopping", "solver"} & set(options):
            return
        assert_same(model.partial_fit(x, y), again.partial_fit(x, y), x)


def test_objects_that_were_passed_are_to_be_trusted_too():
    x, y = data("multiclass")
    chosen = gn.optim.AdamW(weight_decay=0.1)
    model = pair("multiclass", max_iter=3, random_state=0)[1].set_params(optimizer=chosen).fit(x, y)
    content = sio.dumps(model)
    needed = ["gpunn.optim.optimizers.AdamW", OWN["multiclass"]]
    assert sorted(sio.get_untrusted_types(data=content)) == needed
    again = sio.loads(content, trusted=needed)
    assert again.optimizer.weight_decay == 0.1
    assert_same(model, again, x)
