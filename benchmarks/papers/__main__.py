"""Reproduce a published result: `python -m benchmarks.papers NAME --seeds 5 --data-dir FOLDER`.

Every seed is a run with checkpoints. A run that is killed goes on, and a run that has ended is not
repeated. `--epochs` gives all recipes the same shorter budget, which the results state. `--table`
prints what the files of results say.

    python -m benchmarks.papers pylearn2 --seeds 5 --data-dir data --work work
    python -m benchmarks.papers --table
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.machine import machine
from gpunn.benchmarks.papers.recipe import Recipe
from gpunn.benchmarks.papers.recipes import RECIPES
from gpunn.benchmarks.settings import Settings

RESULTS = Path(__file__).parents[1] / "results" / "papers"


class Clock(gn.train.Callback):
    """The wall time of a run, over all its parts."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_epoch_end(
        self, trainer: gn.train.Training, epoch: int, history: gn.train.History
    ) -> None:
        """Add the time of an epoch."""
        self.seconds += history["seconds"][-1]

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the seconds so far."""
        return {}, {"seconds": self.seconds}

    def restore(self, trainer: Any, arrays: dict[str, Any], state: dict[str, Any]) -> None:
        """Go on from the seconds so far."""
        self.seconds = float(state["seconds"])


def run(
    name: str, recipe: Recipe, seed: int, data: tuple[Any, Any], work: Path, device: str
) -> dict[str, Any]:
    """Train one seed to the end, and return its result.

    Args:
        name: the name of the recipe.
        recipe: the recipe.
        seed: the seed of weights, order and masks.
        data: the training and the test data.
        work: the folder for checkpoints.
        device: the device to train on.
    """
    train, test = data
    steps = -(-len(train.x) // recipe.batch_size)
    folder = work / f"{name}-{recipe.epochs}-{seed}"
    trainer = recipe.trainer(steps, seed, device, checkpoint=folder, every=5)
    clock = Clock()
    history = trainer.fit(
        train.x,
        train.y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        callbacks=[clock],
        progress=False,
    )
    wrong = int((trainer.classify(test.x) != test.y).sum())
    return {
        "recipe": name,
        "seed": seed,
        "epochs": recipe.epochs,
        "updates": trainer.steps,
        "test_errors": wrong,
        "test_percent": 100 * wrong / len(test.y),
        "loss": history["loss"][-1],
        "seconds": clock.seconds,
        "device": history.device,
        "gpunn": gn.__version__,
        "day": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.papers {name} --seeds {seed + 1}",
    }


def beside(name: str, recipe: Recipe, seed: int, data: tuple[Any, Any]) -> dict[str, Any]:
    """Train scikit-learn's estimator for the same run, and return its result."""
    import sklearn
    from sklearn.neural_network import MLPClassifier

    train, test = data
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(**recipe.estimator, random_state=seed).fit(train.x, train.y)
    seconds = time.perf_counter() - begun
    wrong = int((model.predict(test.x) != test.y).sum())
    return {
        "recipe": name,
        "by": f"scikit-learn {sklearn.__version__}",
        "seed": seed,
        "epochs": model.n_iter_,
        "test_errors": wrong,
        "test_percent": 100 * wrong / len(test.y),
        "loss": model.loss_,
        "seconds": seconds,
        "day": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.papers {name} --sklearn --seeds {seed + 1}",
    }


def summary(rows: list[dict[str, Any]], recipe: Recipe) -> str:
    """Return a line of the table: mean, standard error, published number, and whether they agree.

    They agree if the published number is within two standard errors and 0.1 percent points.
    """
    found = np.array([row["test_percent"] for row in rows])
    error = float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else float("nan")
    apart = found.mean() - recipe.published
    agrees = "-" if recipe.published != recipe.published else "no"
    if abs(apart) <= max(2 * error, 0.1):
        agrees = "yes"
    by = f", {rows[0]['by']}" if "by" in rows[0] else ""
    counts = sorted({row["epochs"] for row in rows})
    epochs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    each = ", ".join(f"{value:.2f}" for value in found)
    minutes = np.mean([row["seconds"] for row in rows]) / 60
    return (
        f"| {rows[0]['recipe']}{by} | {epochs} | {len(found)} | {found.mean():.3f} | "
        f"{error:.3f} | {recipe.published:.2f} | {agrees} | {each} | {minutes:.1f} |"
    )


def table(results: Path) -> str:
    """Return the table of all results."""
    lines = [
        "| recipe | epochs | seeds | test error % | standard error | published % | agree | each | "
        "minutes a seed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(results.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines.append(summary(rows, RECIPES[rows[0]["recipe"]]))
    return "\n".join(lines)


def main() -> None:
    """Run the seeds of a recipe that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description="Reproduce a published result on MNIST.")
    parser.add_argument("name", nargs="?", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=5, help="the number of seeds, from 0")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=None, help="another number of epochs")
    parser.add_argument("--data-dir", default=None, help="the folder with MNIST")
    parser.add_argument("--work", type=Path, default=Path("work"), help="the folder of checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sklearn", action="store_true", help="scikit-learn's run, beside ours")
    parser.add_argument("--table", action="store_true", help="print the table only")
    given = parser.parse_args()
    if given.name and not given.table:
        recipe = RECIPES[given.name]
        if given.sklearn and not recipe.estimator:
            parser.error(f"got --sklearn for {given.name}, of which scikit-learn has no form")
        if given.epochs is not None:
            recipe = replace(recipe, epochs=given.epochs)
        data = gn.data.load_mnist(given.data_dir)
        print(f"{given.name}: {recipe.source}")
        for sentence in recipe.deviations:
            print(f"  differs: {sentence}")
        given.results.mkdir(parents=True, exist_ok=True)
        kind = "sklearn" if given.sklearn else recipe.epochs
        path = given.results / f"{given.name}-{kind}.jsonl"
        (given.results / "machine.json").write_text(json.dumps(machine(Settings()), indent=1))
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        done = {json.loads(line)["seed"] for line in known}
        for seed in range(given.first, given.seeds):
            if seed not in done:
                if given.sklearn:
                    row = beside(given.name, recipe, seed, data)
                else:
                    row = run(given.name, recipe, seed, data, given.work, given.device)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    print(table(given.results))


if __name__ == "__main__":
    main()
