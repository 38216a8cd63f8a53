"""What the DATA argument of the command line means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpunn.data import load_csv, load_digits, load_mnist, load_npz
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError, DataError

EMBEDDED = ("digits", "mnist")


@dataclass(frozen=True)
class Source:
    """A data set, with its own test set or without.

    Attributes:
        data: all of it, or the training part where `test` is there.
        test: the test set that belongs to it, or None.
        is_file: whether it came from a file of the user's.
    """

    data: Dataset
    test: Dataset | None = None
    is_file: bool = False

    def splits(self, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
        """Training and test examples; classes in proportion where there is no test set."""
        if self.test is not None:
            return self.data, self.test
        if not 0.0 < held_out < 1.0:
            raise ArgumentError(f"got --held-out {held_out}; expected a share between 0 and 1")
        return self.data.split(held_out, seed=seed, stratify=self.data.classes is not None)


def load_source(
    name: str,
    target: str | None = None,
    task: str = "auto",
    data_dir: Path | None = None,
    delimiter: str = ",",
) -> Source:
    """Load what a DATA argument names.

    Raises:
        DataError: no such data set or file, or a broken one.
        ArgumentError: a CSV file without --target.
    """
    if name in EMBEDDED and target is not None:
        raise ArgumentError(f"got --target {target} for {name}, which has its own; leave it out")
    if name == "digits":
        return Source(load_digits())
    if name == "mnist":
        return Source(*load_mnist(data_dir))
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"got {name!r} as DATA, and there is no such file; expected one of "
            f"{', '.join(EMBEDDED)}, or the path of a .csv or .npz file"
        )
    if path.suffix == ".npz":
        return Source(load_npz(path), is_file=True)
    if target is None:
        raise ArgumentError(f"got {name} without a target; expected --target COLUMN")
    return Source(load_csv(path, target, task=task, delimiter=delimiter), is_file=True)
