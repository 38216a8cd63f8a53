"""The command `gpunn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gpunn.cli.outputs import check_output
from gpunn.cli.predict import Training, Wanted, check_width, opened
from gpunn.errors import ArgumentError
from gpunn.examples import BATCH_ROWS
from gpunn.interop import round_to_int8, to_onnx, to_source
from gpunn.interop.source import SUFFIXES
from gpunn.nn import Module
from gpunn.tables import TableModel
from gpunn.train import load

ENDS = (*SUFFIXES, ".onnx")


def export(
    model: Annotated[
        Path, typer.Argument(help="A model.safetensors that gpunn train wrote, or its folder.")
    ],
    output: Annotated[
        Path, typer.Argument(help=f"The file. Its end tells the language: {', '.join(ENDS)}.")
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Write weights in 8 bits.")] = False,
    check: Annotated[
        str | None,
        typer.Option(help="Data as for predict; says how far 8 bits change the outputs for it."),
    ] = None,
) -> None:
    """Write a trained model as one file that needs no library, in another language.

    The file contains the weights, the scaling of the columns, and the names of the classes and
    columns if the model has them.

    Examples:
      gpunn export runs/digits digits.h

      gpunn export runs/digits/model.safetensors digits.html

      gpunn export runs/digits digits.h --int8 --check digits
    """
    path = model / "model.safetensors" if model.is_dir() else model
    training = Training.of(path)
    check_output(output, (path,))
    if output.suffix not in ENDS:
        raise ArgumentError(
            f"got {str(output)!r}; expected a name that ends in {', '.join(ENDS)}: rename it"
        )
    if check is not None and not int8:
        raise ArgumentError("got --check without --int8; expected both: floats change nothing")
    if int8 and output.suffix == ".onnx":
        raise ArgumentError(f"got --int8 for {output}; expected no ONNX file: leave it out")
    kind = "int8" if int8 else "float"
    if TableModel.is_in(path):
        if check is not None:
            raise ArgumentError(
                "got --check for a model of a table; expected a network: leave it out"
            )
        table = TableModel.load(path, device="cpu")
        onnx = output.suffix == ".onnx"
        to_onnx(table, output) if onnx else to_source(table, output, weights=kind)
    elif output.suffix == ".onnx":
        to_onnx(load(path, device="cpu"), output, classes=training.classes)
    else:
        network = load(path, device="cpu")
        names = training.classes, training.features
        to_source(network, output, classes=names[0], features=names[1], weights=kind)
        if check is not None:
            typer.echo(_changes(network, round_to_int8(network), check, training), err=True)
    typer.echo(f"written to {output}: {output.stat().st_size / 1024:,.1f} KiB", err=True)


def _changes(network: Module, rounded: Module, data: str, training: Training) -> str:
    """Say how far weights in 8 bits change the outputs for some data."""
    apart = largest = 0.0
    rows = other = 0
    with opened(data, training, None, None, Wanted(None)) as stream:
        check_width(network, stream.width, data)
        for x, _ in stream.batches(BATCH_ROWS):
            exact, found = network.predict(x), rounded.predict(x)
            apart = max(apart, float(np.abs(found - exact).max()))
            largest = max(largest, float(np.abs(exact).max()))
            rows += len(x)
            if training.classes:
                other += int((network.classify(x) != rounded.classify(x)).sum())
    text = f"int8: outputs up to {largest:.4g} change by at most {apart:.2g} in {rows:,} rows"
    return text + (f"; {other} classes change" if training.classes else "")
