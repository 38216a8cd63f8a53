"""scikit-learn's multilayer perceptrons: the same API, the same numbers and more options."""

from gpunn.errors import MissingExtraError

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise MissingExtraError("scikit-learn", "sklearn", "gpunn.sklearn") from error

from gpunn.sklearn.classifier import MLPClassifier
from gpunn.sklearn.conversion import from_sklearn, to_sklearn
from gpunn.sklearn.regressor import MLPRegressor
from gpunn.sklearn.tables import TableClassifier, TableRegressor

__all__ = [
    "MLPClassifier",
    "MLPRegressor",
    "TableClassifier",
    "TableRegressor",
    "from_sklearn",
    "to_sklearn",
]
