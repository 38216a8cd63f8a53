"""Compare a fit of gpunn's MLPClassifier with scikit-learn's, on the CPU with one BLAS thread.

    python -m benchmarks.sklearn_fit FOLDER_WITH_MNIST

The script fits both estimators in turn with equal settings, seed by seed. It prints the seconds,
the test errors and the median of the paired ratios. It fits full MNIST with layers (100, 100),
batches of 200 and Adam in float32, and a tiny network with layers (8, 8) and batches of 32.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when NumPy is imported

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import neural_network
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning

import gpunn as gn
import gpunn.sklearn

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def mnist(folder: Path) -> Data:
    """Load the 60,000 training and 10,000 test examples of MNIST, as float32 in [0, 1]."""
    train, test = gn.data.load_mnist(data_dir=folder)
    return train.x, train.y, test.x, test.y


def tiny() -> Data:
    """Generate three classes of 20 features: 6,400 training and 2,000 test examples."""
    x, y = make_classification(
        8400, 20, n_informative=10, n_classes=3, n_clusters_per_class=2, random_state=0
    )
    x = x.astype(np.float32)
    return x[:6400], y[:6400], x[6400:], y[6400:]


def fit(cls: type, data: Data, seed: int, **settings: object) -> tuple[float, float]:
    """Return the seconds of a fit and the test error."""
    x, y, x_test, y_test = data
    model = cls(random_state=seed, **settings)
    start = time.perf_counter()
    model.fit(x, y)
    return time.perf_counter() - start, 1 - model.score(x_test, y_test)


def compare(name: str, data: Data, seeds: int, **settings: object) -> float:
    """Print a table of both estimators over seeds; return the median ratio of their seconds."""
    print(f"\n{name}: {settings}")
    print(f"{'seed':>4}{'scikit-learn s':>16}{'gpunn s':>10}{'ratio':>7}{'errors':>18}")
    found = []
    for seed in range(seeds):
        theirs = fit(neural_network.MLPClassifier, data, seed, **settings)
        ours = fit(gpunn.sklearn.MLPClassifier, data, seed, **settings)
        found.append((theirs, ours))
        print(
            f"{seed:4}{theirs[0]:16.2f}{ours[0]:10.2f}{theirs[0] / ours[0]:7.2f}"
            f"{theirs[1]:9.2%}{ours[1]:9.2%}",
            flush=True,
        )
    errors = [[pair[side][1] for pair in found] for side in (0, 1)]
    low, high = min(errors[0]), max(errors[0])
    mean = statistics.mean(errors[1])
    ratio = statistics.median(theirs[0] / ours[0] for theirs, ours in found)
    print(
        f"median ratio {ratio:.2f}; mean error {statistics.mean(errors[0]):.2%} and {mean:.2%}, "
        f"{'within' if low <= mean <= high else 'OUTSIDE'} scikit-learn's spread of {low:.2%} to "
        f"{high:.2%}"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mnist", type=Path, nargs="?", help="folder with MNIST's four IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    settings = {"solver": "adam", "max_iter": options.epochs, "n_iter_no_change": options.epochs}
    compare("tiny", tiny(), options.seeds, hidden_layer_sizes=(8, 8), batch_size=32, **settings)
    if options.mnist is not None:
        compare(
            "MNIST",
            mnist(options.mnist),
            options.seeds,
            hidden_layer_sizes=(100, 100),
            batch_size=200,
            **settings,
        )


if __name__ == "__main__":
    main()
