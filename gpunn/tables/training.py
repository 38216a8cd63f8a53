"""The training of a table model: one member for each fold of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.backends.random import RandomStream, words
from gpunn.columns import Encoding, RawTable
from gpunn.nn import Ensemble, Module, Sequential, Standardize
from gpunn.tables import recipe as recipes
from gpunn.tables.folds import folds_of, temperature_of
from gpunn.tables.model import TableModel
from gpunn.tables.recipe import Recipe
from gpunn.train import History
from gpunn.typing import DeviceLike

Array = np.ndarray[Any, Any]

PARTS = 5  # a single network trains on four of five parts, and the last one chooses its epoch
MEMBER_STREAM = 2**63 + 2**33
QUANTILES = 1001


@dataclass(frozen=True)
class Fitted:
    """A trained table model, and what its training said.

    Attributes:
        model: the model.
        out_of_fold: (N, C) scores or (N, 1) numbers for the training rows, each from the member
            that was not trained on it; NaN for rows that no member left out.
        temperature: what the scores of the members are divided by; 1 for a regression.
        histories: the curves of the members.
    """

    model: TableModel
    out_of_fold: Array
    temperature: float
    histories: list[History]


def fit_table(
    table: RawTable,
    y: Array,
    *,
    classes: int = 0,
    recipe: Recipe | None = None,
    folds: int = 5,
    kinds: Mapping[str, str] | None = None,
    weights: Array | None = None,
    seed: int = 0,
    device: DeviceLike = None,
    on_member: Callable[[int, History], None] | None = None,
) -> Fitted:
    """Train a model on raw rows.

    The rows are divided into folds. Each member trains on all folds but one, which chooses its
    best epoch. The members answer together.

    Args:
        table: N rows of features.
        y: (N,) class numbers from 0, or numbers.
        classes: the number of classes; 0 for a regression.
        recipe: the network and its training.
        folds: the number of members, at least 1. A single one trains on four fifths of the rows.
        kinds: what some columns are; see `Encoding.fit`.
        weights: (N,) weights of the rows, or None.
        seed: the seed of the folds, the weights, the order and dropout.
        device: the device to train on.
        on_member: a function of the number of a member, from 1, and its curves, which is called
            when its training has ended.

    Raises:
        DataError: no column can be used, or there are fewer rows than folds.
    """
    recipe, folds = recipe or Recipe(), count("folds", folds)
    encoding = Encoding.fit(table, kinds)
    codes = encoding(table)
    first = recipes.preprocessing(encoding.levels, codes)
    x = first.predict(codes)
    if classes:
        t, last = y.astype(np.int64), list[Module]()
    else:
        back = Standardize.fit(y.reshape(-1, 1), inverse=True)
        t = ((y - back.mean.numpy()) / back.scale.numpy()).astype(np.float32).reshape(-1, 1)
        last = [back]
    fold = folds_of(y, folds if folds > 1 else PARTS, seed)
    numbers = sum(level == 0 for level in encoding.levels)
    out_of_fold = np.full((len(y), classes or 1), np.nan, np.float32)
    members, histories = list[Module](), list[History]()
    for k in range(folds):
        own = int(words(1, (RandomStream(seed).seed, MEMBER_STREAM), k)[0]) // 2**10
        member = recipes.network(
            recipe, x.shape[1], numbers, classes or 1, classes=bool(classes), seed=own
        )
        inside, outside = fold != k, fold == k
        histories.append(
            recipes.train(
                member,
                recipe,
                x[inside],
                t[inside],
                (x[outside], t[outside]),
                classes=bool(classes),
                seed=own,
                weights=None if weights is None else weights[inside],
                device=device,
            )
        )
        members.append(member)
        if on_member is not None:
            on_member(k + 1, histories[-1])
        out_of_fold[outside] = member.predict(x[outside])
    temperature = 1.0
    known = ~np.isnan(out_of_fold[:, 0])
    if classes:
        temperature = temperature_of(out_of_fold[known], t[known])
        together: Module = Ensemble(members, "probabilities", temperature)
    else:
        together = Ensemble(members)
    network = Sequential(first, together, *last)
    if not classes:
        out_of_fold = back(out_of_fold).numpy()
    errors = None if classes else np.abs(out_of_fold[known, 0] - y[known])
    model = TableModel(
        encoding,
        network,
        limits=None if classes else (float(y.min()), float(y.max())),
        errors=None
        if errors is None
        else np.quantile(errors, np.linspace(0, 1, QUANTILES)).tolist(),
        held_out=int(known.sum()),
    )
    return Fitted(model, out_of_fold, temperature, histories)
