"""scikit-learn's own checks of estimators, every one, with no failure expected."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunn.sklearn import MLPClassifier, MLPRegressor
from tests.conftest import DEVICES, _need

SMALL = {"hidden_layer_sizes": (10,), "learning_rate_init": 0.02, "max_iter": 40}


def estimators():
    """Both estimators on every device; scikit-learn's own defaults on the CPU."""
    for cls in (MLPClassifier, MLPRegressor):
        yield cls(max_iter=100)
        for name in DEVICES[1:]:
            yield cls(device=name, **SMALL)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(list(estimators()))
def test_every_check_of_scikit_learn(estimator, check, request):
    if estimator.device is not None:
        _need(request, estimator.device)
    check(estimator)
