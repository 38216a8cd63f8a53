"""The model of a table: what encodes its columns, and the networks that answer together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.columns import Encoding
from gpunn.errors import ArgumentError, ModelFileError
from gpunn.interop.onnx_answers import Answer
from gpunn.interop.onnx_draft import Draft
from gpunn.nn import Ensemble, Module, OneHot
from gpunn.nn.decisions import largest, shares
from gpunn.tables.onnx import answers
from gpunn.train import load, read_info, save
from gpunn.typing import DeviceLike

Array = np.ndarray[Any, Any]

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, repr=False)
class TableModel:
    """A model that takes raw rows.

    Attributes:
        encoding: what every column is, and how its cells become numbers.
        network: codes -> scores of classes, or numbers in the unit of the target.
        classes: the names of the classes; None for a regression.
        target: the name of the target column, or None.
        limits: for a regression, the smallest and the largest target of the training data, beyond
            which no prediction goes.
        errors: for a regression, 1001 quantiles of the |errors| on held-out rows, else None.
        held_out: the number of rows that were held out.
    """

    encoding: Encoding
    network: Module
    classes: list[str] | None = None
    target: str | None = None
    limits: tuple[float, float] | None = None
    errors: list[float] | None = None
    held_out: int = 0

    def __repr__(self) -> str:
        """Return one line: the target, the columns and the members."""
        if self.limits is None:
            what = f"{len(self.classes)} classes" if self.classes else "classes"
        else:
            what = f"numbers from {self.limits[0]:g} to {self.limits[1]:g}"
        members = next((len(m.members) for m in self.network.modules() if type(m) is Ensemble), 1)
        return (
            f"TableModel({self.target or 'y'}: {what}; {len(self.encoding.names)} columns, "
            f"{members} networks)"
        )

    def outputs(self, data: Any) -> Array:
        """Return (N, C) scores of classes, or (N, 1) numbers, for N raw rows."""
        return self.of_codes(self.encoding(data))

    def of_codes(self, codes: Array) -> Array:
        """Return the outputs for (N, D) rows that `encoding` has encoded."""
        found: Array = self.network.predict(codes)
        return found if self.limits is None else np.clip(found, *self.limits)

    def predict(self, data: Any) -> Array:
        """Return an answer for each of N raw rows.

        Returns:
            (N,) names of classes, or (N,) float64 numbers in the unit of the target. Classes that
            have no names are the integers from 0.

        Raises:
            DataError: a score that decides is NaN or infinite.
        """
        found = self.outputs(data)
        if self.limits is not None:
            return found[:, 0].astype(np.float64)
        chosen: Array = largest(found)
        return chosen if self.classes is None else np.array(self.classes)[chosen]

    def probabilities(self, data: Any) -> Array:
        """Return (N, C) probabilities of the classes for N raw rows.

        Raises:
            ArgumentError: the model is for a regression.
        """
        if self.limits is not None:
            raise ArgumentError(
                "got a model for numbers; expected one for classes: use predict, or half_width for "
                "intervals"
            )
        found: Array = shares(self.outputs(data))
        return found

    def effects(self, codes: Array) -> Array:
        """Return how much each column that is used moves the answers for (N, D) encoded rows.

        It is the number, or the probability of the class that is predicted, minus what it is if
        nothing were known of the column. Effects of columns that say the same are shared or hidden.

        Returns:
            (N, K) floats, in the order of `encoding.names`.
        """
        outputs, sources = self.of_codes(codes), np.array(self.encoding.sources)
        best = outputs.argmax(axis=1)[:, None]

        def answers(some: Array) -> Array:
            found = self.of_codes(some)
            if self.limits is None:
                found = np.take_along_axis(shares(found), best, axis=1)
            return found[:, 0]

        base, neutral = answers(codes), self.encoding.neutral
        found = np.empty((len(codes), len(self.encoding.names)))
        for k, name in enumerate(self.encoding.names):
            found[:, k] = base - answers(np.where(sources == name, neutral, codes))
        return found

    def reasons(self, codes: Array, most: int = 3) -> list[list[str]]:
        """Return for each of (N, D) encoded rows the columns that move its answer most.

        Returns:
            N lists of texts such as "area +120.5", the largest effect first; see `effects`.
        """
        effects, names = self.effects(codes), self.encoding.names
        order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :most]
        return [
            [f"{names[k]} {row[k]:+.4g}" for k in chosen]
            for row, chosen in zip(effects, order, strict=True)
        ]

    def half_width(self, coverage: float = 0.9) -> float:
        """Return the half width of intervals around predictions that contain the target.

        Args:
            coverage: the probability with which a new row's target is inside, between 0 and 1.

        Raises:
            ArgumentError: the coverage is outside its range, or the model is for classes.
        """
        if self.errors is None or not 0 < coverage < 1:
            raise ArgumentError(
                f"got coverage={coverage!r} for a model "
                f"{'of classes' if self.errors is None else 'of numbers'}; expected a number "
                "between 0 and 1 for a model of numbers"
            )
        rank = np.ceil(coverage * (self.held_out + 1)) / self.held_out
        if rank > 1:
            return float("inf")
        return float(np.interp(rank, np.linspace(0, 1, len(self.errors)), self.errors))

    def info(self) -> dict[str, Any]:
        """Return what a model file holds beside the network, as values for JSON."""
        return {
            "target": self.target,
            "classes": self.classes,
            "features": list(self.encoding.names),
            "encoding": self.encoding.values(),
            "limits": None if self.limits is None else list(self.limits),
            "errors": self.errors,
            "held_out": self.held_out,
        }

    def draft_onnx(self, draft: Draft, classes: Array | None = None) -> dict[str, Answer]:
        """Add the model to a draft of an ONNX graph; `gpunn.interop.to_onnx` calls it.

        Args:
            draft: the draft.
            classes: (C,) the classes, texts or integers; None for the names in the model.

        Raises:
            ArgumentError: a column has dates, or the names of the classes are unknown.
        """
        if classes is None and self.limits is None:
            if self.classes is None:
                raise ArgumentError(
                    "got a model that does not know the names of its classes; expected some: "
                    "export the estimator, or use dataclasses.replace(model, classes=[...])"
                )
            classes = np.array(self.classes, object)
        return answers(draft, self.encoding, self.network, classes, self.limits)

    def save(self, path: str | Path) -> None:
        """Write the model to one file; see `gpunn.save`."""
        save(self.network, path, info=self.info())

    @staticmethod
    def is_in(path: str | Path) -> bool:
        """Return whether a model file holds a table model."""
        info: Any = read_info(path)
        return isinstance(info, dict) and info.get("encoding") is not None

    @classmethod
    def load(cls, path: str | Path, *, device: DeviceLike = None) -> TableModel:
        """Read a model from a file.

        Raises:
            ModelFileError: the file is broken, or holds no table model.
        """
        if not cls.is_in(path):
            raise ModelFileError(
                f"got {path} without an encoding of columns; expected a table model, as gpunn "
                "train and TableModel.save write it: use gpunn.load for other models"
            )
        info = read_info(path)
        values: dict[str, Any] = {
            name: info.get(name) for name in ("classes", "target", "limits", "errors")
        }
        values["held_out"] = info.get("held_out", 0)
        if not _are_facts(**values):
            raise ModelFileError(
                f"got {path} with unexpected values in its info; expected those of a table model: "
                "train it again"
            )
        if values["limits"] is not None:
            values["limits"] = tuple(values["limits"])
        encoding = Encoding.of(info["encoding"])
        network = load(path, device=device)
        levels = next((m.levels for m in network.modules() if isinstance(m, OneHot)), None)
        if levels != list(encoding.levels):
            raise ModelFileError(
                f"got {path} with a network for other columns than its encoding gives; expected "
                "one that takes them: train it again"
            )
        return cls(encoding=encoding, network=network, **values)


def _are_facts(classes: Any, target: Any, limits: Any, errors: Any, held_out: Any) -> bool:
    """Return whether the values in the info of a file are those of a table model."""

    def numbers(values: Any, least: int) -> bool:
        return (
            isinstance(values, list)
            and len(values) >= least
            and all(type(each) is float and abs(each) <= FLOAT32_MAX for each in values)
        )

    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    known = (classes is None or names) and (target is None or isinstance(target, str))
    of_numbers = numbers(limits, 2) and sorted(limits) == limits and numbers(errors, 2)
    of_numbers = of_numbers and len(limits) == 2 and sorted(errors) == errors
    regression = of_numbers and classes is None
    return (
        known
        and type(held_out) is int
        and held_out >= 0
        and (regression or (limits is None and errors is None))
    )
