"""The dependence of a regressor on its features, after scikit-learn's example.

Only the import of the estimator differs from a script for scikit-learn. With
`from sklearn.neural_network import MLPRegressor` the script prints the same.
"""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.inspection import partial_dependence
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

from gpunn.sklearn import MLPRegressor


def main() -> None:
    """Fit a regressor, and print its score and its dependence on two features."""
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    model = make_pipeline(
        QuantileTransformer(n_quantiles=100),
        MLPRegressor(
            hidden_layer_sizes=(30, 15),
            learning_rate_init=0.01,
            early_stopping=True,
            random_state=0,
        ),
    ).fit(x_train, y_train - y_train.mean())
    print(f"test R2 {model.score(x_test, y_test - y_train.mean()):.6f}")
    for feature in ("bmi", "s5"):
        found = partial_dependence(model, x_train, [feature], grid_resolution=8)
        print(feature, np.array2string(found["average"][0], precision=5))


if __name__ == "__main__":
    main()
