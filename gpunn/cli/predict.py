"""The command `gpunn predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpunn
from gpunn.cli.outputs import check_output, open_output
from gpunn.cli.sources import EMBEDDED, load_source
from gpunn.columns import Encoding, is_missing
from gpunn.data import FeatureStream, open_features
from gpunn.data.table import is_class
from gpunn.errors import DataError, ModelFileError, ShapeError
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Linear, Module
from gpunn.nn.decisions import largest
from gpunn.progress_bar import progress_bar
from gpunn.train import load, read_info

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Training:
    """The facts about its training that `gpunn train` stores in a model file.

    Attributes:
        classes: the names of the classes in the order of the outputs; None for a regression.
        features: the names of the feature columns; None if they had no names.
        target: the name of the target column, or None.
        delimiter: the character between two cells; None to recognise it.
        encoding: the encoding of the columns; None for numbers as they are.
        limits: for a table model of numbers, the smallest and the largest prediction.
    """

    classes: list[str] | None = None
    features: list[str] | None = None
    target: str | None = None
    delimiter: str | None = None
    encoding: Encoding | None = None
    limits: list[float] | None = None

    @classmethod
    def of(cls, path: Path) -> Training:
        """Read the facts from a model file.

        Raises:
            ModelFileError: the file is not a model file, or holds other values in these places.
        """
        info: Any = read_info(path)
        known = info if isinstance(info, dict) else {"classes": info}
        found = cls(**{name: known[name] for name in vars(cls()) if name in known})
        lists = all(names is None or _are_names(names) for names in (found.classes, found.features))
        target = found.target is None or isinstance(found.target, str)
        delimiter = found.delimiter is None or isinstance(found.delimiter, str)
        if not (lists and target and delimiter and _are_limits(found.limits)):
            raise ModelFileError(
                f"got {path} with unexpected values in its info; expected the lists of names that "
                "gpunn train writes: train it again"
            )
        if found.encoding is None:
            return found
        return replace(found, encoding=Encoding.of(found.encoding))


def run(path: Path, data: str, output: Path | None, device: str, data_dir: Path | None) -> None:
    """Write one prediction per line, and print the accuracy if the true classes are known."""
    choice = gpunn.choose_device(device)
    training = Training.of(path)
    model = load(path, device=choice.device)
    check_output(output, (path, data))
    typer.echo(f"device: {choice.device} ({choice.why})", err=True)
    with _open(data, training, data_dir) as stream:
        if training.encoding is None:
            _check_width(model, stream.width, data)
        hits, labelled, rows = 0, 0, 0
        with (
            open_output(output, training.classes) as out,
            _bar(stream.rows, beside=output is not None) as bar,
        ):
            for x, labels in stream.batches(BATCH_ROWS):
                outputs = model.predict(x)
                if training.limits is not None:
                    outputs = np.clip(outputs, training.limits[0], training.limits[1])
                if training.classes:
                    _check_classes(outputs, training.classes, path)
                out.write(outputs)
                if training.classes and labels is not None:
                    found = [training.classes[k] for k in largest(outputs)]
                    pairs = [p for p in zip(found, labels, strict=True) if not is_missing(p[1])]
                    hits += sum(is_class(*pair) for pair in pairs)
                    labelled += len(pairs)
                rows += len(x)
                bar.update(len(x))
    if output is not None:
        typer.echo(f"{rows} predictions written to {output}", err=True)
    if labelled:
        typer.echo(f"accuracy: {100 * hits / labelled:.2f} %", err=True)


def _open(
    data: str, training: Training, data_dir: Path | None
) -> AbstractContextManager[FeatureStream]:
    """Open the examples to predict, with the names of their classes if they are known."""
    if data in EMBEDDED:
        return nullcontext(_embedded(data, data_dir))
    if data != STANDARD_INPUT and not Path(data).exists():
        raise DataError(
            f"got {data!r} as DATA, but there is no such file; expected {', '.join(EMBEDDED)}, the "
            "path of a .csv, .npz or .npy file, or - for standard input: check the path"
        )
    source = sys.stdin.buffer if data == STANDARD_INPUT else Path(data)
    return open_features(
        source,
        training.features,
        training.target,
        delimiter=training.delimiter,
        encoding=training.encoding,
    )


def _embedded(data: str, data_dir: Path | None) -> FeatureStream:
    source = load_source(data, data_dir=data_dir)
    examples = source.test or source.data
    names = examples.classes or ()

    def batches(size: int) -> Iterator[tuple[np.ndarray[Any, Any], list[str] | None]]:
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            yield examples.x[part], [names[k] for k in examples.y[part]]

    return FeatureStream(examples.x.shape[1], len(examples), batches)


def _check_width(model: Module, width: int, data: str) -> None:
    first = next((m for m in model.modules() if isinstance(m, Linear)), None)
    if first is not None and width != first.in_features:
        raise ShapeError(
            f"got {data} with {width} features; expected {first.in_features}, as in training: pass "
            "the same columns"
        )


def _check_classes(outputs: np.ndarray[Any, Any], classes: list[str], path: Path) -> None:
    if outputs.shape[1:] != (len(classes),):
        raise ModelFileError(
            f"got outputs of shape {outputs.shape} from {path}, which names {len(classes)} classes;"
            " expected an output for each class: train it again"
        )


def _are_limits(limits: Any) -> bool:
    if limits is None:
        return True
    pair = isinstance(limits, list) and len(limits) == 2
    return pair and all(type(each) is float and np.isfinite(each) for each in limits)


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _bar(rows: int | None, beside: bool) -> Any:
    """Return a progress bar, shown on a terminal unless the predictions are printed there too."""
    shown = sys.stderr.isatty() and (beside or not sys.stdout.isatty())
    return progress_bar(rows, "row", shown=shown, scaled=True)
