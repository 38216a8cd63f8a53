"""The identity of a run: everything that decides its numbers, as text in its checkpoints."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpunn.backends import backend_of
from gpunn.data.batchfeed import BatchSource
from gpunn.data.rows import RowTable
from gpunn.errors import ModelFileError
from gpunn.fingerprint import Identity
from gpunn.fingerprint.identity import difference
from gpunn.log import logger
from gpunn.nn import Buffer, Parameter
from gpunn.sparse import is_sparse
from gpunn.storage.untrusted.bounded_json import shortened
from gpunn.train.callbacks import Callback
from gpunn.train.training import Training
from gpunn.typing import Array

Texts = dict[str, str]
FORM, PYTHON = "form", "python"
THIS_FORM = "1"
"""The form of the settings. It changes when gpunn's own classes have other settings.

Settings that only one of two forms has are not compared.
"""


@dataclass
class Given:
    """The arguments of a fit that decide its numbers.

    Attributes:
        tables: the examples, their targets, and their weights if there are any.
        validation: the examples and targets of the validation data, or ().
        batch_size: the examples of a step.
        shuffle: the argument `shuffle` of the fit.
        callbacks: the callbacks of the fit.
        epochs: the number of epochs. Another fit may have more.
        drop_last: whether a smaller last batch is left out.
    """

    tables: tuple[Array, ...]
    validation: tuple[Array, ...]
    batch_size: int
    shuffle: Any
    callbacks: Sequence[Callback]
    epochs: int
    drop_last: bool = False


@dataclass
class Run:
    """The identity of a run at one of its fits.

    Attributes:
        settings: what the training was given, by name.
        given: what the fit was given, by name.
        data: the description of the data in one line, which older releases wrote.
    """

    settings: Texts
    given: Texts
    data: str

    @classmethod
    def of(cls, training: Training, given: Given) -> Run:
        """Identify a fit before it starts, and add its settings to those of the training.

        What cannot be identified is named in the log, once.
        """
        first = training.position.fits == 1
        if first:
            training.beginning = _numbers(training)
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        settings = Identity(training.settings())
        kept = [_callback(callback, first) for callback in keepers(given.callbacks)]
        fit = Identity({"shuffle": given.shuffle, "callbacks": kept})
        unknown = settings.unknown or fit.unknown
        if unknown and not training.warned:
            training.warned = True
            logger.warning(
                "checkpoints: nothing identifies %s; a run with another one would go on from "
                "these checkpoints, too",
                unknown,
            )
        tables = _described(("x", "y", "weights"), given.tables)
        held_out = _described(("x", "y"), given.validation)
        of_fit = {"batch_size": str(given.batch_size)}
        of_fit |= {"drop_last": "True"} if given.drop_last else {}
        of_fit |= {f"data.{name}": f"{name} {text}" for name, text in tables.items()}
        of_fit |= {f"validation.{name}": f"{name} {text}" for name, text in held_out.items()}
        words = [f"{name} {text}" for name, text in tables.items() if name != "x.indptr"]
        run = cls(
            {**settings.settings, **training.beginning, FORM: THIS_FORM, PYTHON: python},
            {**of_fit, **fit.settings},
            ", ".join([f"batch_size {given.batch_size}", *words]),
        )
        changes = _changes(told(training.told), run.settings)
        if changes:
            training.told.append((training.position.fits, changes))
        return run


def check(run: Run, fits: int, history: list[tuple[int, Any]], given: Texts | None) -> None:
    """Check that a checkpoint belongs to this run.

    Args:
        run: the identity of this run.
        fits: the number of its fits.
        history: the settings of the checkpoint's run; see `told`.
        given: what the checkpoint's fit was given; None for a later fit than this one.

    Raises:
        ModelFileError: it belongs to another run. The message names the first setting that differs.
    """
    theirs = told(history, fits)
    if FORM not in theirs:
        refuse(FORM, "nothing", THIS_FORM)
    same = {name: theirs.get(name) == run.settings[name] for name in (FORM, PYTHON)}
    for old, new in ((theirs, run.settings), (given or {}, run.given if given else {})):
        left, right = ({k: v for k, v in d.items() if k not in same} for d in (old, new))
        name = difference(left, right, whole=same[FORM], code=same[PYTHON])
        if name:
            refuse(name, left.get(name, "nothing"), right.get(name, "nothing"))


def refuse(name: str, old: str, new: str) -> None:
    """Raise the error for a checkpoint of another run.

    Raises:
        ModelFileError: always.
    """
    raise ModelFileError(
        f"got a checkpoint of a run with {name} {shortened(old)}; expected {shortened(new)}, as in "
        "this run: choose another folder for it, or delete this one to start again"
    )


def told(history: list[tuple[int, Any]], fits: int | None = None) -> Texts:
    """Return the settings at a fit of a run, or at its last one.

    Args:
        history: the number of each fit, with the settings that changed before it. None stands for
            a setting that was no longer there.
        fits: the number of the fit; None for the last one.
    """
    found: dict[str, Any] = {}
    for number, changes in history:
        if fits is None or number <= fits:
            found.update(changes)
    return {name: text for name, text in found.items() if text is not None}


def keepers(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that have a state to keep. The others only look at a run."""
    return [each for each in callbacks if type(each).state is not Callback.state]


def _changes(old: Texts, new: Texts) -> dict[str, str | None]:
    changed: dict[str, str | None] = {k: v for k, v in new.items() if old.get(k) != v}
    return changed | dict.fromkeys(old.keys() - new.keys())


def _callback(callback: Callback, first: bool) -> Any:
    """Return the part of a callback that is the same when the run is repeated."""
    described = hasattr(type(callback), "__identity__")
    return callback if first or described else type(callback)


def _numbers(training: Training) -> Texts:
    """Identify the numbers that a run begins with, except those that are drawn by chance."""
    found: Texts = {}
    for prefix, module in training.model.named_modules():
        if module.by_chance:
            continue
        own = [*module._members(Parameter), *module._members(Buffer)]
        for name, tensor in own:
            crc = zlib.crc32(tensor.numpy().tobytes())
            found[f"initial {prefix}.{name}" if prefix else f"initial {name}"] = f"{crc:08x}"
    return found


def _described(names: Sequence[str], tables: tuple[Array, ...]) -> Texts:
    """Describe arrays by their shapes, dtypes and checksums."""
    found: Texts = {}
    for name, array in zip(names, tables, strict=False):
        if isinstance(array, RowTable | BatchSource):
            found[name] = array.mark()
            continue
        if is_sparse(array):  # a CSR matrix
            crc = zlib.crc32(array.data.tobytes(), zlib.crc32(array.indices.tobytes()))
            found[name] = f"{array.shape} {array.dtype} sparse {crc:08x}"
            found[f"{name}.indptr"] = f"{zlib.crc32(array.indptr.tobytes()):08x}"
            continue
        host = backend_of(array).download(array)
        found[name] = f"{host.shape} {host.dtype} {zlib.crc32(host.tobytes()):08x}"
    return found
