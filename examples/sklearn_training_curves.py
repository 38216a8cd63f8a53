"""Learning strategies side by side, after scikit-learn's example on training curves.

Only the import of the estimator differs from a script for scikit-learn. With
`from sklearn.neural_network import MLPClassifier` the script prints the same.
"""

import sys
import warnings

from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler

from gpunn.sklearn import MLPClassifier

EPOCHS = 5 if "--short" in sys.argv else 15

STRATEGIES = {
    "constant": {"learning_rate": "constant", "momentum": 0},
    "constant, momentum": {"momentum": 0.9, "nesterovs_momentum": False},
    "constant, Nesterov": {"momentum": 0.9, "nesterovs_momentum": True},
    "inverse scaling": {"learning_rate": "invscaling", "momentum": 0},
    "inverse scaling, momentum": {"learning_rate": "invscaling", "nesterovs_momentum": False},
    "inverse scaling, Nesterov": {"learning_rate": "invscaling", "nesterovs_momentum": True},
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
}


def main() -> None:
    """Fit every strategy to every data set, and print the scores and losses."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    sets = {
        "iris": datasets.load_iris(return_X_y=True),
        "digits": datasets.load_digits(return_X_y=True),
        "circles": datasets.make_circles(noise=0.2, factor=0.5, random_state=1),
        "moons": datasets.make_moons(noise=0.3, random_state=0),
    }
    for name, (x, y) in sets.items():
        print(f"learning on {name}")
        x = MinMaxScaler().fit_transform(x)
        for label, options in STRATEGIES.items():
            given = {"solver": "sgd", "learning_rate_init": 0.2, **options}
            model = MLPClassifier(random_state=0, max_iter=EPOCHS, **given).fit(x, y)
            print(f"  {label:26} score {model.score(x, y):.6f}  loss {model.loss_:.8f}")


if __name__ == "__main__":
    main()
