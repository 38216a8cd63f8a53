"""Data sets in memory: examples and targets with their names, and the scaling of columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from gpunn.arguments import flag
from gpunn.backends import backend_of
from gpunn.data.checks import (
    as_float32,
    check_arrays,
    check_labels,
    check_lengths,
)
from gpunn.errors import ArgumentError, DataError, DeviceMismatchError, ShapeError
from gpunn.examples import column_scales, rows_of
from gpunn.frames import column_names
from gpunn.html import table, text
from gpunn.sparse import is_sparse

SPLIT_STREAM = 2**62  # random streams of the data layer; layers count from 1
UNNAMED = "data"
FEW, MANY = 5, 8  # rows and columns that a notebook shows
MAX_UNNAMED_CLASSES = 2**16  # a larger label is an identifier or a quantity, not a class


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples with their targets on the host, checked once.

    Arrays are converted to the dtypes below, and copied only if they have another dtype. Instead of
    arrays, frames of pandas or Polars, their columns, and tensors are accepted.

    Args:
        x: (N, D) finite numbers; kept as float32, C-contiguous.
        y: (N,) integer class indices, kept as int64; or (N, K) or (N,) regression targets, kept
            as (N, K) float32.
        classes: the names of the C classes in the order of their indices. Integer `y` without names
            gets "0", "1", ...; None means regression.
        features: the names of the D columns; None for the names of a frame, or for no names.
        name: the name of the data in reports and pictures.

    Raises:
        DataError: there are no examples, there is NaN or infinity, a label is out of range, or a
            column of a frame does not hold numbers.
        ShapeError: the arrays or names do not fit each other.
        DTypeError: the values are not numbers, or the labels are not integers.

    Example:
        >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 1])
        >>> data = Dataset(x, y, classes=("no", "yes"))
        >>> data
        Dataset('data': 3 examples, 1 feature, 2 classes)
        >>> data.subset([2, 0]).y
        array([1, 0])
    """

    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    name: str = UNNAMED

    def __post_init__(self) -> None:
        features = column_names(self.x) if self.features is None else self.features
        x, y = _on_host("x", self.x), _on_host("y", self.y)
        classes = self.classes
        check_lengths(x, y)
        if classes is None and y.ndim == 1 and y.dtype.kind in "iu":
            classes = _numbered(y)
        labelled = classes is not None
        size = None if classes is None else len(classes)
        check_arrays(x, y, task="classification" if labelled else "regression", classes=size)
        if features is not None and len(features) != x.shape[1]:
            raise ShapeError(
                f"got {len(features)} feature names and x of shape {x.shape}; expected a name "
                "for each column: pass as many names as columns"
            )
        if not labelled and y.ndim == 1:
            y = y[:, np.newaxis]
        object.__setattr__(self, "x", as_float32("x", x))
        object.__setattr__(
            self, "y", np.ascontiguousarray(y, np.int64) if labelled else as_float32("y", y)
        )
        object.__setattr__(self, "classes", None if classes is None else tuple(classes))
        object.__setattr__(self, "features", features and tuple(features))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        columns = self.x.shape[1]
        targets = self.y.shape[1] if self.classes is None else len(self.classes)
        kind = ("target", "targets") if self.classes is None else ("class", "classes")
        return (
            f"Dataset({self.name!r}: {len(self)} example{'s' * (len(self) != 1)}, "
            f"{columns} feature{'s' * (columns != 1)}, {targets} {kind[targets != 1]})"
        )

    def _repr_html_(self) -> str:
        """Return the facts and the first rows, for a notebook."""
        shown = self.x[:FEW, :MANY]
        names = self.features or [str(k) for k in range(self.x.shape[1])]
        cut = self.x.shape[1] > MANY
        target = "class" if self.classes else "target"
        head = [*names[:MANY], *(["…"] if cut else []), target]
        rows = []
        for row, y in zip(shown, self.y, strict=False):
            answer = self.classes[y] if self.classes else _few(y)
            rows.append([*(f"{value:.4g}" for value in row), *(["…"] if cut else []), answer])
        first = table(head, rows, numbers=len(head))
        return f"<p>{text(repr(self))}; the first {len(rows)}:</p>{first}"

    def subset(self, indices: Any) -> Dataset:
        """Return a data set of the rows that `indices` names, in that order.

        Args:
            indices: (M,) integers in [0, N), or an (N,) boolean mask.

        Raises:
            ArgumentError: `indices` is no such array, or an index is out of range.
            DataError: no rows are selected.
        """
        rows = np.asarray(indices)
        if rows.dtype == bool and rows.shape == (len(self),):
            rows = np.flatnonzero(rows)
        if rows.size == 0:
            raise DataError("got no rows to select; expected at least one: check the selection")
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ArgumentError(
                f"got indices of shape {rows.shape} and dtype {rows.dtype}; expected integers (M,) "
                f"or a boolean mask ({len(self)},): convert them"
            )
        outside = (rows < 0) | (rows >= len(self))
        if outside.any():
            raise ArgumentError(
                f"got index {rows[outside][0]}; expected 0 <= index < {len(self)}, the number of "
                "examples: check the selection"
            )
        return replace(self, x=self.x[rows], y=self.y[rows])

    def split(
        self, held_out: float, seed: int = 0, stratify: bool = False
    ) -> tuple[Dataset, Dataset]:
        """Divide the rows at random into a training part and a held-out part.

        Args:
            held_out: the fraction of the rows to hold out, 0 < fraction < 1; or their number, an
                integer, 1 <= number < N.
            seed: 64-bit seed; the same seed gives the same parts.
            stratify: whether to hold out the same fraction of every class, with at least one row
                of it in each part.

        Returns:
            (train, held_out), which together have every row once.

        Raises:
            ArgumentError: `held_out` is outside its range, `stratify` is neither True nor False,
                or it is used without classes.
            DataError: with `stratify`, a class has fewer than two rows, or the parts are too small
                to hold every class.

        Example:
            >>> data = Dataset(np.arange(10.0)[:, None], np.arange(10) % 2)
            >>> train, test = data.split(0.4, seed=1, stratify=True)
            >>> np.bincount(train.y), np.bincount(test.y)
            (array([3, 3]), array([2, 2]))
        """
        train, test = self.split_rows(held_out, seed, stratify)
        return self.subset(train), self.subset(test)

    def split_rows(
        self, held_out: float, seed: int = 0, stratify: bool = False
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the numbers of the rows of both parts of `split`, which explains the arguments."""
        from gpunn.backends.random import RandomStream, permutation

        count, stratify = _held_out_count(held_out, len(self)), flag("stratify", stratify)
        order = permutation(len(self), RandomStream(seed).seed, SPLIT_STREAM)
        if not stratify:
            return order[count:], order[:count]
        if self.classes is None:
            raise ArgumentError(
                "got stratify=True for regression targets; expected classes: pass stratify=False"
            )
        shares = _class_shares(np.bincount(self.y, minlength=len(self.classes)), count, self)
        labels = self.y[order]
        chosen = np.zeros(len(self), bool)
        for label, share in enumerate(shares):
            chosen[np.flatnonzero(labels == label)[:share]] = True
        return order[~chosen], order[chosen]


@dataclass(frozen=True, eq=False)
class Standardizer:
    """A function that shifts and scales each column, y = (x - mean) / scale.

    Fit it on the training part and apply it to every other part. `gpunn.nn.Standardize` does the
    same as a layer of a network, which is saved with the network.

    Args:
        mean: (D,) float64.
        scale: (D,) float64, the standard deviation; 1 for a column that is constant.

    Example:
        >>> scaler = Standardizer.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> scaler(np.array([[1.0, 5.0], [5.0, 6.0]]))
        array([[-1.,  0.],
               [ 3.,  1.]], dtype=float32)
    """

    mean: np.ndarray[Any, Any]
    scale: np.ndarray[Any, Any]

    @classmethod
    def fit(cls, x: Any) -> Standardizer:
        """Compute the mean and standard deviation of the columns of `x` (N, D), in float64.

        Raises:
            DataError: x has no rows, or holds NaN or infinity.
            ShapeError: x is not (N, D).
        """
        return cls(*column_scales(x))

    @overload
    def __call__(self, x: Dataset) -> Dataset: ...

    @overload
    def __call__(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...

    def __call__(self, x: Any) -> Any:
        """Standardize the columns of a `Dataset` or of an array (N, D), and return float32.

        Raises:
            ShapeError: the number of columns is not that of the fitted data.
        """
        if isinstance(x, Dataset):
            return replace(x, x=self(x.x))
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ShapeError(
                f"got x of shape {x.shape}; expected (N, {len(self.mean)}), the columns that the "
                "standardizer was fitted on: pass the same columns"
            )
        return as_float32("standardized x", (x - self.mean) / self.scale)


def _on_host(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Return examples or targets as a NumPy array.

    Raises:
        DeviceMismatchError: the values are on a GPU.
        DataError: the values are sparse.
    """
    found = rows_of(values, name)
    if is_sparse(found):
        raise DataError(
            f"got a sparse {name}; expected dense rows in a Dataset: pass sparse matrices to "
            "Trainer.fit, or use toarray()"
        )
    if not isinstance(found, np.ndarray):
        raise DeviceMismatchError(
            f"got {name} on {backend_of(found).device}; expected an array on the host: copy it "
            "with .get() or .numpy()"
        )
    return found


def _numbered(y: np.ndarray[Any, Any]) -> tuple[str, ...]:
    check_labels(y)
    largest = int(y.max())
    if largest >= MAX_UNNAMED_CLASSES:
        raise DataError(
            f"got label {largest} and no class names; expected labels below {MAX_UNNAMED_CLASSES}: "
            "number the classes from 0 with np.unique(y, return_inverse=True), or pass y as "
            "floats for regression"
        )
    return tuple(map(str, range(largest + 1)))


def _held_out_count(held_out: float, n: int) -> int:
    whole = isinstance(held_out, int | np.integer) and not isinstance(held_out, bool)
    if whole and 1 <= held_out < n:
        return int(held_out)
    if isinstance(held_out, float | np.floating) and 0 < held_out < 1 and n > 1:
        return min(max(1, round(n * float(held_out))), n - 1)
    raise ArgumentError(
        f"got held_out={held_out!r} for {n} examples; expected a share between 0 and 1 (a float) "
        f"or a number of rows from 1 to {n - 1} (an integer): pass e.g. 0.2"
    )


def _class_shares(sizes: np.ndarray[Any, Any], count: int, data: Dataset) -> list[int]:
    """Return the number of held-out rows of each class, in proportion to the class sizes.

    Both parts get at least one row of each class.
    """
    assert data.classes is not None
    present = [label for label, size in enumerate(sizes) if size]
    for label in present:
        if sizes[label] < 2:
            raise DataError(
                f"got a class {data.classes[label]!r} with a single row; expected at least 2, one "
                "for each part: add rows, remove the class, or pass stratify=False"
            )
    if min(count, len(data) - count) < len(present):
        raise DataError(
            f"got {count} held-out rows of {len(data)}; expected at least {len(present)} in each "
            "part, one for each class: change held_out or pass stratify=False"
        )
    ideal = sizes * (count / len(data))
    shares = np.where(sizes > 0, np.clip(np.floor(ideal), 1, np.maximum(sizes - 1, 1)), 0)
    shares = shares.astype(np.int64)
    while (missing := count - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = shares < sizes - 1 if step > 0 else shares > 1
        need = np.where(free, step * (ideal - shares), -np.inf)
        shares[int(np.argmax(need))] += step
    return [int(share) for share in shares]


def _few(numbers: Any) -> str:
    """Return the first numbers of a row as text."""
    return ", ".join(f"{value:.4g}" for value in numbers[:MANY]) + ", …" * (len(numbers) > MANY)
