"""The contenders: each trains on a frame and predicts probabilities or numbers.

A contender is a function of a frame, targets, whether the targets are classes, and a seed. It
returns a fitted object with `predict`, and for classes `predict_proba` and `classes_`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Contender = Callable[[Any, Any, bool, int], Any]


def _text(frame: Any) -> list[str]:
    return [c for c in frame if frame[c].dtype.kind not in "fiu"]


def _pipeline(frame: Any, model: Any) -> Any:
    """Put the usual preprocessing before a model: imputing, one-hot, standard scores."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    text = _text(frame)
    numbers = [c for c in frame if c not in text]
    levels = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5, sparse_output=False),
    )
    columns = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
            numbers,
        ),
        (levels, text),
    )
    return make_pipeline(columns, model)


class Prepared:
    """A model behind a function that prepares frames."""

    def __init__(self, model: Any, prepare: Callable[[Any], Any]) -> None:
        self.model, self.prepare = model, prepare

    def predict(self, frame: Any) -> Any:
        """Return the predictions of the model."""
        return self.model.predict(self.prepare(frame))

    def predict_proba(self, frame: Any) -> Any:
        """Return the probabilities of the model."""
        return self.model.predict_proba(self.prepare(frame))

    @property
    def classes_(self) -> Any:
        """The classes of the model."""
        return self.model.classes_


def linear(frame: Any, y: Any, classes: bool, seed: int) -> Any:
    """Fit a logistic or a ridge regression."""
    from sklearn.linear_model import LogisticRegression, RidgeCV

    model = LogisticRegression(max_iter=2000) if classes else RidgeCV(np.logspace(-3, 3, 13))
    return _pipeline(frame, model).fit(frame, y)


def sklearn_mlp(frame: Any, y: Any, classes: bool, seed: int) -> Any:
    """Fit scikit-learn's MLP in a good pipeline, with scaled targets and early stopping."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    if classes:
        return _pipeline(frame, MLPClassifier(early_stopping=True, random_state=seed)).fit(frame, y)
    model = _pipeline(frame, MLPRegressor(early_stopping=True, random_state=seed))
    return TransformedTargetRegressor(model, transformer=StandardScaler()).fit(frame, y)


def _categories(frame: Any) -> Callable[[Any], Any]:
    levels = {c: sorted(frame[c].dropna().unique()) for c in _text(frame)}

    def prepare(other: Any) -> Any:
        text = other[list(levels)].astype("category")
        return other.assign(**{c: text[c].cat.set_categories(levels[c]) for c in levels})

    return prepare


def hist_gradient_boosting(frame: Any, y: Any, classes: bool, seed: int) -> Any:
    """Fit HistGradientBoosting with its own handling of categories."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    prepare = _categories(frame)
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(random_state=seed, categorical_features="from_dtype")
    return Prepared(model.fit(prepare(frame), y), prepare)


class _Numbered:
    """A classifier of XGBoost, whose classes are numbers, with the names of classes."""

    def __init__(self, model: Any, names: Any) -> None:
        self.model, self.classes_ = model, names

    def predict_proba(self, frame: Any) -> Any:
        """Return the probabilities."""
        return self.model.predict_proba(frame)

    def predict(self, frame: Any) -> Any:
        """Return the names of the classes."""
        return self.classes_[self.model.predict_proba(frame).argmax(1)]


def xgboost(frame: Any, y: Any, classes: bool, seed: int) -> Any:
    """Fit XGBoost with its own handling of categories."""
    import xgboost as xgb

    prepare = _categories(frame)
    options = {"enable_categorical": True, "random_state": seed, "n_jobs": 1}
    if not classes:
        return Prepared(xgb.XGBRegressor(**options).fit(prepare(frame), y), prepare)
    names, numbers = np.unique(y, return_inverse=True)
    model = xgb.XGBClassifier(**options).fit(prepare(frame), numbers)
    return Prepared(_Numbered(model, names), prepare)


def catboost(frame: Any, y: Any, classes: bool, seed: int) -> Any:
    """Fit CatBoost with its own handling of categories."""
    import catboost as cb

    text = _text(frame)

    def prepare(other: Any) -> Any:
        return other.astype({c: object for c in text}).fillna({c: "missing" for c in text})

    kind = cb.CatBoostClassifier if classes else cb.CatBoostRegressor
    model = kind(
        random_seed=seed, thread_count=1, verbose=0, allow_writing_files=False, cat_features=text
    )
    model.fit(prepare(frame), y)
    return Prepared(_Flat(model), prepare)


class _Flat:
    """A model of CatBoost, whose predictions of several classes are a column."""

    def __init__(self, model: Any) -> None:
        self.model, self.classes_ = model, getattr(model, "classes_", None)

    def predict(self, frame: Any) -> Any:
        """Return the predictions as one row."""
        return np.asarray(self.model.predict(frame)).reshape(-1)

    def predict_proba(self, frame: Any) -> Any:
        """Return the probabilities."""
        return self.model.predict_proba(frame)


def _pytabkit(kind: str) -> Contender:
    def fit(frame: Any, y: Any, classes: bool, seed: int) -> Any:
        import pytabkit

        text = _text(frame)
        numbers = [c for c in frame if c not in text]
        middle = frame[numbers].median()

        def prepare(other: Any) -> Any:
            marks = {
                f"{c} is missing": other[c].isna().astype(str)
                for c in numbers
                if frame[c].isna().any()
            }
            filled = other.fillna(middle.to_dict() | {c: "missing" for c in text})
            return filled.assign(**marks).astype({c: "category" for c in [*text, *marks]})

        model = getattr(pytabkit, f"{kind}_{'Classifier' if classes else 'Regressor'}")(
            random_state=seed, device="cpu", n_threads=1
        )
        model.fit(prepare(frame), np.asarray(y))
        return Prepared(model, prepare)

    return fit


def _gpunn(**options: Any) -> Contender:
    def fit(frame: Any, y: Any, classes: bool, seed: int) -> Any:
        import gpunn.sklearn

        kind = getattr(gpunn.sklearn, "TableClassifier" if classes else "TableRegressor")
        return kind(random_state=seed, **options).fit(frame, y)

    return fit


CONTENDERS: dict[str, Contender] = {
    "gpunn": _gpunn(),
    "gpunn single": _gpunn(folds=1),
    "linear": linear,
    "scikit-learn MLP": sklearn_mlp,
    "HistGradientBoosting": hist_gradient_boosting,
    "XGBoost": xgboost,
    "CatBoost": catboost,
    "RealMLP-TD": _pytabkit("RealMLP_TD"),
    "TabM-D": _pytabkit("TabM_D"),
}
