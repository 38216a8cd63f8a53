"""gpunn predict."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import typer

import gpunn
from gpunn.cli.sources import EMBEDDED, load_source
from gpunn.data import load_features
from gpunn.errors import DataError, OutputError, ShapeError
from gpunn.nn import Linear, Module
from gpunn.train import load, read_info


def run(path: Path, data: str, output: Path | None, device: str, data_dir: Path | None) -> None:
    """Write one prediction a line; say the accuracy where the right classes are known."""
    choice = gpunn.choose_device(device)
    info = read_info(path)
    model = load(path, device=choice.device)
    typer.echo(f"device: {choice.device} ({choice.why})", err=True)
    x, labels = _examples(data, info, data_dir)
    _check_width(model, x, data)
    if info.get("classes"):
        found = model.classify(x)
        names = [info["classes"][k] for k in found]
        _output(output, ["prediction"], [[name] for name in names])
        if labels is not None:
            hits = np.mean([name == label for name, label in zip(names, labels, strict=True)])
            typer.echo(f"accuracy: {100 * hits:.2f} %", err=True)
    else:
        values = model.predict(x).reshape(len(x), -1)
        head = ["prediction"] if values.shape[1] == 1 else None
        head = head or [f"prediction_{k}" for k in range(values.shape[1])]
        _output(output, head, values.tolist())


def _examples(
    data: str, info: dict[str, Any], data_dir: Path | None
) -> tuple[np.ndarray[Any, Any], Sequence[str] | None]:
    """The examples to predict, and the names of their classes where they are known."""
    if data in EMBEDDED:
        source = load_source(data, data_dir=data_dir)
        examples = source.test or source.data
        return examples.x, [(examples.classes or ())[k] for k in examples.y]
    path = Path(data)
    if not path.is_file():
        raise DataError(f"got {data!r} as DATA; expected {' or '.join(EMBEDDED)}, or a file")
    delimiter = info.get("delimiter", ",")
    return load_features(path, info.get("features"), info.get("target"), delimiter=delimiter)


def _check_width(model: Module, x: np.ndarray[Any, Any], data: str) -> None:
    first = next((m for m in model.modules() if isinstance(m, Linear)), None)
    if first is not None and x.shape[1] != first.in_features:
        raise ShapeError(
            f"got {data} with {x.shape[1]} features; expected {first.in_features}, as in training"
        )


def _output(output: Path | None, head: list[str], rows: list[list[Any]]) -> None:
    if output is None:
        _write(sys.stdout, head, rows)
        return
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            _write(file, head, rows)
    except OSError as error:
        raise OutputError(
            f"got {output} for the predictions; it cannot be written: {error}"
        ) from error
    typer.echo(f"{len(rows)} predictions written to {output}", err=True)


def _write(file: TextIO, head: list[str], rows: list[list[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
