"""The penalty alpha and the shape of a decision, after scikit-learn's example on regularization.

Only the import of the estimator differs from a script for scikit-learn. With
`from sklearn.neural_network import MLPClassifier` the script prints the same.
"""

import warnings

import numpy as np
from sklearn.datasets import make_circles, make_classification, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpunn.sklearn import MLPClassifier


def main() -> None:
    """Print test scores and a coarse picture of where class 1 is predicted."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, y = make_classification(
        n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1
    )
    x += 2 * np.random.RandomState(2).uniform(size=x.shape)
    sets = [
        make_moons(noise=0.3, random_state=0),
        make_circles(noise=0.2, factor=0.5, random_state=1),
        (x, y),
    ]
    for x, y in sets:
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=42)
        grid = np.stack(np.meshgrid(*[np.linspace(a.min(), a.max(), 12) for a in x.T]), axis=-1)
        for alpha in np.logspace(-1, 1, 5):
            model = make_pipeline(
                StandardScaler(),
                MLPClassifier(
                    solver="lbfgs",
                    alpha=alpha,
                    random_state=1,
                    max_iter=200,
                    early_stopping=True,
                    hidden_layer_sizes=[10, 10],
                ),
            ).fit(x_train, y_train)
            found = model.predict_proba(grid.reshape(-1, 2))[:, 1].reshape(12, 12)
            print(f"alpha {alpha:.2f}: score {model.score(x_test, y_test):.2f}")
            print("\n".join("  " + "".join(" .:+#"[int(p * 4.999)] for p in row) for row in found))


if __name__ == "__main__":
    main()
