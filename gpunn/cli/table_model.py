"""The command `gpunn train` for a table: the table model and its report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpunn
from gpunn.cli.outputs import output_folder
from gpunn.cli.settings import Settings, sizes
from gpunn.cli.sources import STANDARD_INPUT, existing, required
from gpunn.columns.cells import number_in
from gpunn.data import TableData, load_table
from gpunn.errors import ArgumentError, MissingExtraError
from gpunn.nn import Linear, Sequential
from gpunn.storage.atomic import write_atomically
from gpunn.tables import Recipe, fit_table
from gpunn.tables.page import html_page
from gpunn.tables.recipe import preprocessing
from gpunn.tables.report import report
from gpunn.train import Trainer

Array = np.ndarray[Any, Any]


def run_table(settings: Settings) -> None:
    """Train a table model, print its report, and write the model and the report."""
    choice = gpunn.choose_device(settings.device)
    typer.echo(f"device: {choice.device}, {gpunn.backend(choice.device).describe()} ({choice.why})")
    train, test = loaded(settings)
    folder = output_folder(settings)
    gone = f", {train.left_out} left out without {settings.target}" if train.left_out else ""
    typer.echo(f"data: {train.name}, {len(train)} rows to train on, {len(test)} to test on{gone}")
    typer.echo(f"task: {task_line(settings, train.classes)}")
    recipe = chosen_recipe(settings)
    found = fit_table(
        train.table,
        train.y,
        classes=len(train.classes or ()),
        recipe=recipe,
        folds=settings.folds,
        kinds=settings.kinds,
        decimal=settings.decimal,
        time_limit_s=settings.time_limit,
        seed=settings.seed,
        device=choice.device,
        on_member=_tell(settings),
    )
    model = replace(
        found.model,
        classes=None if train.classes is None else list(train.classes),
        target=settings.target,
    )
    typer.echo(f"columns: {model.encoding.describe()}")
    done = report(
        model,
        test.table,
        _flat(test),
        linear=_linear(model, train, test),
        trivial=_trivial(train, test),
    )
    typer.echo(done.text())
    model.save(folder / "model.safetensors")
    record = {
        "gpunn": gpunn.__version__,
        "device": gpunn.backend(choice.device).describe(),
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "recipe": asdict(recipe),
        "report": done.values(),
        "curves": [
            {name: curve for name, curve in history.curves.items() if name != "seconds"}
            for history in found.histories
        ],
    }
    write_atomically(folder / "report.json", (json.dumps(record, indent=1) + "\n").encode())
    written = ["model.safetensors", "report.json"]
    facts = [f"task: {task_line(settings, train.classes)}", f"{len(train):,} rows to train on"]
    outputs = model.outputs(test.table)
    try:
        page = html_page(
            train.name, facts, model.encoding, done, found.histories, outputs, _flat(test)
        )
        write_atomically(folder / "report.html", page.encode())
        written.append("report.html")
    except MissingExtraError as error:
        typer.echo(f"no page: {error}")
    typer.echo(f"written to {folder}: {', '.join(written)}")


def loaded(settings: Settings) -> tuple[TableData, TableData]:
    """Load the rows to train on, and those to test on.

    Raises:
        ArgumentError: there is no target, or the fraction that is held out is outside (0, 1).
        DataError, UnknownNameError: as for `load_table`.
    """
    source = sys.stdin.buffer if settings.data == STANDARD_INPUT else existing(settings.data)
    target = required(settings.target, settings.data)
    told: dict[str, Any] = {
        name: getattr(settings, name) for name in ("delimiter", "decimal", "encoding", "header")
    }
    data = load_table(source, target, task=settings.task, **told)
    if settings.test is not None:
        return data, load_table(existing(settings.test), target, like=data, **told)
    if not 0.0 < settings.held_out < 1.0:
        raise ArgumentError(
            f"got --held-out {settings.held_out}; expected a fraction between 0 and 1: pass e.g. "
            "0.2"
        )
    return data.split(settings.held_out, settings.seed)


def task_line(settings: Settings, classes: Any) -> str:
    """Return a line that says what the target was taken for, and how to say otherwise."""
    name = settings.target or "y"
    if classes is None:
        return f"regression of {name} (--task classification for classes)"
    numbers = all(number_in(each) is not None for each in classes)
    hint = " (--task regression for numbers)" if settings.target and numbers else ""
    return f"classification into {len(classes)} classes{hint}"


def chosen_recipe(settings: Settings) -> Recipe:
    """Return the recipe with the options that were given."""
    given = {
        "hidden": None if settings.hidden is None else tuple(sizes(settings.hidden)),
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "dropout": settings.dropout,
    }
    chosen: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    return replace(Recipe(), **chosen)


def _tell(settings: Settings) -> Any:
    def tell(number: int, history: Any) -> None:
        if settings.progress:
            typer.echo(f"member {number} of {settings.folds}: {len(history['loss'])} epochs")

    return tell


def _flat(data: TableData) -> Array:
    return data.y if data.classes else data.y[:, 0]


def _trivial(train: TableData, test: TableData) -> Array:
    """Return the outputs of a model that answers every row alike."""
    if train.classes is None:
        return np.full((len(test), 1), train.y.mean())
    counts = np.bincount(train.y, minlength=len(train.classes))
    return np.tile(np.log((counts + 1) / (counts + 1).sum()), (len(test), 1))


def _linear(model: Any, train: TableData, test: TableData) -> Array:
    """Return the outputs of a linear model of the same features."""
    codes = model.encoding(train.table)
    first = preprocessing(model.encoding.levels, codes)
    x = first.predict(codes)
    net = Linear(x.shape[1], len(train.classes or ()) or 1, init="zeros", seed=0)
    unit = None if train.classes else (train.y.mean(), train.y.std() or 1.0)
    y = train.y if unit is None else (train.y - unit[0]) / unit[1]
    loss = "softmax_cross_entropy" if train.classes else "squared_error"
    trainer = Trainer(net, loss, gpunn.optim.Adam(lr=0.02), schedule="cosine", seed=0)
    trainer.fit(x, y, epochs=40, batch_size=64, progress=False)
    found: Array = Sequential(first, net).predict(model.encoding(test.table))
    return found if unit is None else found * unit[1] + unit[0]
