"""The command `gpunn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunn.cli.outputs import check_output
from gpunn.cli.predict import Training
from gpunn.errors import ArgumentError
from gpunn.interop import to_onnx, to_source
from gpunn.interop.source import SUFFIXES
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
) -> None:
    """Write a trained model as one file that needs no library, in another language.

    The file contains the weights, the scaling of the columns, and the names of the classes and
    columns if the model has them.

    Examples:
      gpunn export runs/digits digits.h

      gpunn export runs/digits/model.safetensors digits.html
    """
    path = model / "model.safetensors" if model.is_dir() else model
    training = Training.of(path)
    check_output(output, (path,))
    if output.suffix not in ENDS:
        raise ArgumentError(
            f"got {str(output)!r}; expected a name that ends in {', '.join(ENDS)}: rename it"
        )
    if TableModel.is_in(path):
        table = TableModel.load(path, device="cpu")
        to_onnx(table, output) if output.suffix == ".onnx" else to_source(table, output)
    elif output.suffix == ".onnx":
        to_onnx(load(path, device="cpu"), output, classes=training.classes)
    else:
        network = load(path, device="cpu")
        to_source(network, output, classes=training.classes, features=training.features)
    typer.echo(f"written to {output}: {output.stat().st_size / 1024:,.1f} KiB", err=True)
