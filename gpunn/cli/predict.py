"""The command `gpunn predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpunn
from gpunn.cli.outputs import check_output, open_output
from gpunn.cli.sources import EMBEDDED, STANDARD_INPUT, load_source
from gpunn.columns import is_missing
from gpunn.columns.cells import number_in
from gpunn.data import FeatureStream, open_features
from gpunn.data.dialect import Dialect
from gpunn.data.table import is_class
from gpunn.errors import ArgumentError, DataError, ModelFileError, ShapeError
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Linear, Module
from gpunn.nn.decisions import largest
from gpunn.progress_bar import progress_bar
from gpunn.tables import TableModel
from gpunn.train import load, read_info


@dataclass(frozen=True)
class Training:
    """The facts about its training that `gpunn train` stores in a model file.

    Attributes:
        classes: the names of the classes in the order of the outputs; None for a regression.
        features: the names of the feature columns; None if they had no names.
        target: the name of the target column, or None.
        delimiter: the character between two cells; None to recognise it.
    """

    classes: list[str] | None = None
    features: list[str] | None = None
    target: str | None = None
    delimiter: str | None = None

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
        texts = (found.target, found.delimiter)
        if not (lists and all(text is None or isinstance(text, str) for text in texts)):
            raise ModelFileError(
                f"got {path} with unexpected values in its info; expected the lists of names that "
                "gpunn train writes: train it again"
            )
        return found


@dataclass(frozen=True)
class Wanted:
    """The choices of `gpunn predict`: where the answers go, and what stands beside them.

    Attributes:
        output: the file; None for standard output.
        chances: whether to write the probabilities of classes.
        coverage: the probability that a number is in its interval; None for no intervals.
        told: how the data are written, as far as it was said.
        reasons: the number of columns to name that move an answer most.
    """

    output: Path | None
    chances: bool = False
    coverage: float | None = None
    told: Dialect = field(default_factory=Dialect)
    reasons: int = 0


class Score:
    """The score of predictions whose true targets are known."""

    def __init__(self, classes: list[str] | None) -> None:
        self.classes, self.count, self.hits = classes, 0, 0
        self._sums = np.zeros(3)  # of the squared errors, the targets and their squares

    def add(self, outputs: np.ndarray[Any, Any], labels: list[str]) -> None:
        """Add some predictions; rows with a missing target do not count."""
        if self.classes:
            found = [self.classes[k] for k in largest(outputs)]
            pairs = [p for p in zip(found, labels, strict=True) if not is_missing(p[1])]
            self.hits += sum(is_class(*pair) for pair in pairs)
            self.count += len(pairs)
        elif outputs.ndim == 2 and outputs.shape[1] == 1:
            known = [(y, number_in(t)) for y, t in zip(outputs[:, 0].tolist(), labels, strict=True)]
            y, t = np.array([pair for pair in known if pair[1] is not None]).reshape(-1, 2).T
            self._sums += [np.sum((y - t) ** 2), np.sum(t), np.sum(t**2)]
            self.count += len(t)

    def text(self) -> str:
        """Return the score as text; an empty one if no target is known."""
        if not self.count:
            return ""
        if self.classes:
            return f"accuracy: {100 * self.hits / self.count:.2f} %"
        errors, total, squares = self._sums
        spread = squares - total**2 / self.count
        text = f"rmse: {np.sqrt(errors / self.count):.6g}"
        return text + (f", r2: {1 - errors / spread:.6g}" if spread > 0 else "")


def run(path: Path, data: str, wanted: Wanted, device: str, data_dir: Path | None) -> None:
    """Write one prediction per line, and print the score if the true targets are known."""
    choice = gpunn.choose_device(device)
    path = path / "model.safetensors" if path.is_dir() else path
    training = Training.of(path)
    table = TableModel.load(path, device=choice.device) if TableModel.is_in(path) else None
    model: Any = load(path, device=choice.device) if table is None else table
    half = _half(table, wanted, training)
    check_output(wanted.output, (path, data))
    typer.echo(f"device: {choice.device} ({choice.why})", err=True)
    with opened(data, training, table, data_dir, wanted) as stream:
        if table is None:
            check_width(model, stream.width, data)
        score, rows = Score(training.classes), 0
        with (
            open_output(wanted.output, training.classes, wanted.chances, half) as out,
            _bar(stream.rows, beside=wanted.output is not None) as bar,
        ):
            for x, labels in stream.batches(BATCH_ROWS):
                outputs = model.predict(x) if table is None else table.of_codes(x)
                if training.classes:
                    _check_classes(outputs, training.classes, path)
                out.write(
                    outputs, table.reasons(x, wanted.reasons) if table and wanted.reasons else None
                )
                if labels is not None:
                    score.add(outputs, labels)
                rows += len(x)
                bar.update(len(x))
    if stream.odd:
        odd = ", ".join(f"{count} in {name}" for name, count in stream.odd.items())
        typer.echo(f"cells that the training data does not explain: {odd}", err=True)
    if wanted.output is not None:
        typer.echo(f"{rows} predictions written to {wanted.output}", err=True)
    if score.text():
        typer.echo(score.text(), err=True)


def _half(table: TableModel | None, wanted: Wanted, training: Training) -> float | None:
    """Return the half width of the intervals that are wanted.

    Raises:
        ArgumentError: the model cannot give what is wanted.
    """
    if wanted.chances and training.classes is None:
        raise ArgumentError(
            "got --probabilities for a model of numbers; expected one of classes: use --interval "
            "0.9 for intervals"
        )
    if wanted.reasons and table is None:
        raise ArgumentError(
            "got --reasons for a model that is no table model; expected one that gpunn train made "
            "of a table: leave it out"
        )
    if wanted.coverage is None:
        return None
    if table is None:
        raise ArgumentError(
            "got --interval for a model that is no table model; expected one that gpunn train "
            "made of a table: leave it out"
        )
    return table.half_width(wanted.coverage)


def opened(
    data: str,
    training: Training,
    table: TableModel | None,
    data_dir: Path | None,
    wanted: Wanted,
) -> AbstractContextManager[FeatureStream]:
    """Open the examples to predict, with the names of their classes if they are known."""
    if data in EMBEDDED:
        return nullcontext(_embedded(data, data_dir))
    if data != STANDARD_INPUT and not Path(data).exists():
        raise DataError(
            f"got {data!r} as DATA, but there is no such file; expected {', '.join(EMBEDDED)}, the "
            "path of a file with columns or of a .npz or .npy file, or - for standard input: check "
            "the path"
        )
    source = sys.stdin.buffer if data == STANDARD_INPUT else Path(data)
    return open_features(
        source,
        training.features,
        training.target,
        delimiter=wanted.told.delimiter or training.delimiter,
        encoding=wanted.told.encoding,
        header=wanted.told.header,
        columns=None if table is None else table.encoding,
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


def check_width(model: Module, width: int, data: str) -> None:
    """Check that data have as many columns as a model takes.

    Raises:
        ShapeError: they have another number.
    """
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


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _bar(rows: int | None, beside: bool) -> Any:
    """Return a progress bar, shown on a terminal unless the predictions are printed there too."""
    shown = sys.stderr.isatty() and (beside or not sys.stdout.isatty())
    return progress_bar(rows, "row", shown=shown, scaled=True)
