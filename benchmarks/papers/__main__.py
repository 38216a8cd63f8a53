"""Reproduce a published result: `python -m benchmarks.papers NAME --seeds 5 --data-dir FOLDER`.

NAME is a recipe or the first word of several, such as `table9`. Every seed is a run with
checkpoints. A run that is killed goes on, and a run that has ended is not repeated. `--epochs`
gives all recipes the same shorter budget, which the results state. `--table` prints what the files
of results say. The results are drawn as well, to `evidence.png` in their folder.

    python -m benchmarks.papers pylearn2 --seeds 5 --data-dir data --work work
    python -m benchmarks.papers table9 --seeds 3 --epochs 20 --data-dir data --work work
    python -m benchmarks.papers --table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gpunn as gn
from gpunn.benchmarks.papers.recipe import Recipe
from gpunn.benchmarks.papers.recipes import RECIPES
from gpunn.benchmarks.papers.report import draw, results, table
from gpunn.benchmarks.papers.run import beside, run

RESULTS = Path(__file__).parents[1] / "results" / "papers"


def chosen(name: str) -> dict[str, Recipe]:
    """Return the recipe of a name, or those whose names begin with it."""
    if name in RECIPES:
        return {name: RECIPES[name]}
    found = {n: r for n, r in RECIPES.items() if n.startswith(f"{name}-")}
    if not found:
        known = ", ".join(RECIPES)
        raise argparse.ArgumentTypeError(f"got {name!r}; expected one of {known}, or a first word")
    return found


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return the parser, and the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Reproduce a published result on MNIST.")
    parser.add_argument("recipes", metavar="NAME", nargs="?", type=chosen, default={})
    parser.add_argument("--seeds", type=int, default=5, help="the number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=None, help="another number of epochs")
    parser.add_argument("--data-dir", default=None, help="the folder with MNIST")
    parser.add_argument("--work", type=Path, default=Path("work"), help="the folder of checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sklearn", action="store_true", help="scikit-learn's run, beside ours")
    parser.add_argument("--table", action="store_true", help="print the table only")
    return parser, parser.parse_args()


def seeds(name: str, recipe: Recipe, given: argparse.Namespace, data: tuple[Any, Any]) -> None:
    """Run the seeds of a recipe that have no result yet."""
    print(f"{name}: {recipe.source}")
    for sentence in recipe.deviations:
        print(f"  differs: {sentence}")
    path = given.results / f"{name}-{'sklearn' if given.sklearn else recipe.epochs}.jsonl"
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {json.loads(line)["seed"] for line in known}
    for seed in range(given.first, given.first + given.seeds):
        if seed in done:
            continue
        if given.sklearn:
            row = beside(name, recipe, seed, data)
        else:
            row = run(name, recipe, seed, data, given.work, given.device)
        option = " --sklearn" if given.sklearn else f" --epochs {given.epochs}" * bool(given.epochs)
        option += f" --first {seed}" * bool(seed)
        row["command"] = f"python -m benchmarks.papers {name}{option} --seeds 1"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def main() -> None:
    """Run the seeds that have no result yet, print the table, and draw it."""
    parser, given = arguments()
    if given.recipes and not given.table:
        data = gn.data.load_mnist(given.data_dir)
        given.results.mkdir(parents=True, exist_ok=True)
        for name, recipe in given.recipes.items():
            if given.sklearn and not recipe.estimator:
                parser.error(f"got --sklearn for {name}, of which scikit-learn has no form")
            seeds(
                name, recipe if given.epochs is None else recipe.within(given.epochs), given, data
            )
    found = results(given.results)
    print(table(found))
    draw(found, given.results / "evidence.png")


if __name__ == "__main__":
    main()
