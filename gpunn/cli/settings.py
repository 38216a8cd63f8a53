"""The options of `gpunn train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpunn.errors import ArgumentError


@dataclass(frozen=True)
class Settings:
    """The options of `gpunn train`."""

    data: str
    target: str | None
    task: str
    delimiter: str | None
    decimal: str | None
    encoding: str | None
    header: bool | None
    test: str | None
    model: str
    folds: int
    time_limit: float | None
    kinds: dict[str, str]
    hidden: str | None
    activation: str
    dropout: float | None
    epochs: int | None
    batch_size: int | None
    optimizer: str
    lr: float | None
    schedule: str
    l2: float
    patience: int
    held_out: float
    standardize: bool | None
    seed: int
    device: str
    precision: str
    output: Path | None
    overwrite: bool
    checkpoint: Path | None
    every: int
    shards: int | None
    data_dir: Path | None
    progress: bool


def sizes(text: str) -> list[int]:
    """Return the sizes of hidden layers from a text such as "256,128".

    Raises:
        ArgumentError: the text is no such list.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ArgumentError(
            f"got --hidden {text!r}; expected sizes separated by commas: use --hidden 256,128"
        ) from error
