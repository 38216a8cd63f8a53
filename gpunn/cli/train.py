"""The command `gpunn train`."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpunn
from gpunn.cli.outputs import output_folder
from gpunn.cli.pictures import draw
from gpunn.cli.settings import Settings, sizes
from gpunn.cli.sources import load_source, split
from gpunn.cli.table_model import run_table, task_line
from gpunn.data.dataset import Dataset, Standardizer
from gpunn.data.rows import Rows, RowTable
from gpunn.data.rowtargets import scaled, scales
from gpunn.distributed import Group, NcclGroup, launched, workers
from gpunn.errors import MissingExtraError
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Dropout, Linear, Module, Sequential, Standardize
from gpunn.optim import L2, Optimizer, get_optimizer
from gpunn.storage.atomic import write_atomically
from gpunn.train import EarlyStopping, History, Trainer, save

NETWORK = {"hidden": "256,128", "dropout": 0.5, "epochs": 60, "batch_size": 32}
"""The defaults of a plain network."""


def run(settings: Settings) -> None:
    """Train a network, print its scores, and write the model, its history and its curve.

    Of several processes that share the shards, the first one prints and writes.
    """
    if settings.model == "table":
        run_table(settings)
        return
    missing: dict[str, Any] = {k: v for k, v in NETWORK.items() if getattr(settings, k) is None}
    settings = replace(settings, **missing)
    group: Group | None = None
    if settings.shards is not None and launched() > 1:
        group = workers(gpunn.choose_device(settings.device).device)
    if isinstance(group, NcclGroup):
        settings = replace(settings, device=group.device)
    if group is None or not group.rank:
        _run(settings, group)
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        _run(settings, group)


def _run(settings: Settings, group: Group | None) -> None:
    assert settings.epochs is not None  # `run` set it
    assert settings.batch_size is not None
    choice = gpunn.choose_device(settings.device)
    typer.echo(f"device: {choice.device}, {gpunn.backend(choice.device).describe()} ({choice.why})")
    source = load_source(
        settings.data, settings.target, settings.task, settings.data_dir, settings.delimiter
    )
    train, test = source.splits(settings.held_out, settings.seed)
    validation = test
    if settings.patience:  # early stopping must not choose the epoch by the test examples
        train, validation = split(train, settings.held_out, settings.seed + 1)
    wanted = source.is_file if settings.standardize is None else settings.standardize
    scaler = _scales(train.x) if wanted else None
    unit = None if train.classes else _scales(train.y)
    gpunn.manual_seed(settings.seed)
    with gpunn.device(choice.device):
        model = build(settings, train, scaler)
    trainer = Trainer(
        model,
        loss="softmax_cross_entropy" if train.classes else "half_squared_error",
        optimizer=_optimizer(settings),
        seed=settings.seed,
        regularizer=L2(settings.l2) if settings.l2 else None,
        schedule=settings.schedule,
        precision=settings.precision,
        checkpoint=settings.checkpoint,
        every=settings.every,
        shards=settings.shards,
        group=group,
    )
    folder = output_folder(settings)
    weights = sum(p.size for p in model.parameters())
    typer.echo(f"data: {source.name}, {len(train)} examples to train on, {len(test)} to test on")
    typer.echo(f"model: {_sizes(model)}, {weights:,} parameters")
    typer.echo(f"task: {task_line(settings, train.classes)}")
    history = trainer.fit(
        _in_units(train, unit),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation=_in_units(validation, unit),
        callbacks=[EarlyStopping(patience=settings.patience)] if settings.patience else (),
        progress=settings.progress,
    )
    if history.stopped:
        typer.echo(f"stopped: {history.stopped}")
    if unit is not None:
        with gpunn.device(choice.device):
            model = Sequential(*model.layers, Standardize(unit.mean, unit.scale, inverse=True))
    scores = trainer.evaluate(test) if unit is None else _regression_scores(model, test)
    for name, value in scores.items():
        shown = f"{100 * value:.2f} %" if name == "accuracy" else f"{value:.6g}"
        typer.echo(f"test {name}: {shown}")
    if group is None or not group.rank:
        _write(folder, settings, model, train, test, source.name, history, scores)


def build(settings: Settings, data: Dataset | Rows, scaler: Standardizer | None) -> Sequential:
    """Build the network: hidden layers with dropout behind each, and a linear output layer."""
    outputs = len(data.classes) if data.classes else data.y.shape[1]
    layers: list[Module] = [] if scaler is None else [Standardize(scaler.mean, scaler.scale)]
    width = data.x.shape[1]
    for size in sizes(settings.hidden or ""):
        layers.append(Linear(width, size, activation=settings.activation))
        if settings.dropout:
            layers.append(Dropout(settings.dropout))
        width = size
    return Sequential(*layers, Linear(width, outputs))


def _scales(table: Any) -> Standardizer:
    return scales(table) if isinstance(table, RowTable) else Standardizer.fit(table)


def _in_units(data: Dataset | Rows, unit: Standardizer | None) -> Dataset | Rows:
    """Scale the targets of a regression to mean 0 and deviation 1."""
    if unit is None:
        return data
    if isinstance(data, Rows):
        return Rows(data.x, scaled(data.y, unit), data.features)
    return replace(data, y=unit(data.y))


def _regression_scores(model: Module, test: Dataset | Rows) -> dict[str, float]:
    """Return the root mean squared error, in the unit of the target, and R squared."""
    squares, spread, mean = 0.0, 0.0, _scales(test.y).mean
    for start in range(0, len(test), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        y = test.y[part]
        squares += float(np.sum((model.predict(test.x[part]) - y) ** 2))
        spread += float(np.sum((y - mean) ** 2))
    size = len(test) * test.y.shape[1]
    return {"rmse": float(np.sqrt(squares / size)), "r2": 1.0 - squares / max(spread, 1e-30)}


def _optimizer(settings: Settings) -> Optimizer:
    options = {} if settings.lr is None else {"lr": settings.lr}
    return get_optimizer(settings.optimizer, **options)


def _sizes(model: Module) -> str:
    linear = [module for module in model.modules() if isinstance(module, Linear)]
    return "-".join(map(str, [linear[0].in_features, *(m.out_features for m in linear)]))


def _write(
    folder: Path,
    settings: Settings,
    model: Module,
    data: Dataset | Rows,
    test: Dataset | Rows,
    name: str,
    history: History,
    scores: dict[str, float],
) -> None:
    info: dict[str, Any] = {
        "data": name,
        "target": settings.target,
        "delimiter": settings.delimiter,
        "classes": data.classes,
        "features": data.features,
        "encoding": None,
    }
    save(model, folder / "model.safetensors", info=info)
    record = {
        "gpunn": gpunn.__version__,
        "device": history.device,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "stopped": history.stopped,
        "test": scores,
        "curves": history.curves,
    }
    write_atomically(folder / "history.json", (json.dumps(record, indent=1) + "\n").encode())
    written = ["model.safetensors", "history.json"]
    try:
        written += draw(folder, name, history, model, test)
    except MissingExtraError as error:
        typer.echo(f"no picture: {error}")
    typer.echo(f"written to {folder}: {', '.join(written)}")
