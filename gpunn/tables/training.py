"""The training of a table model: one member for each fold of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.backends import backend
from gpunn.backends.cpu.blas import one_thread
from gpunn.backends.cpu.threads import get_num_threads
from gpunn.backends.random import RandomStream, words
from gpunn.columns import Encoding, RawTable
from gpunn.distributed import on_threads
from gpunn.errors import ShapeError
from gpunn.nn import Ensemble, Module, Sequential, Standardize
from gpunn.tables import recipe as recipes
from gpunn.tables.clock import Clock
from gpunn.tables.folds import folds_of, quantiles_of, temperature_of
from gpunn.tables.model import TableModel
from gpunn.tables.recipe import Recipe
from gpunn.train import History
from gpunn.train.inputs import training_weights
from gpunn.typing import DeviceLike

Array = np.ndarray[Any, Any]

PARTS = 5  # a single network trains on four of five parts, and the last one chooses its epoch
MEMBER_STREAM = 2**63 + 2**33
LEAST_EPOCHS = 8  # a member with fewer would not be worth its part of the time


@dataclass(frozen=True)
class Fitted:
    """A trained table model, and what its training said.

    Attributes:
        model: the model.
        out_of_fold: (N, C) scores or (N, 1) numbers for the training rows, each from the member
            that was not trained on it; NaN for rows that no member left out, and for those of
            weight 0.
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
    decimal: str | None = None,
    weights: Array | None = None,
    seed: int = 0,
    device: DeviceLike = None,
    threads: int | None = None,
    time_limit_s: float | None = None,
    on_member: Callable[[int, History], None] | None = None,
) -> Fitted:
    """Train a model on raw rows.

    The rows are divided into folds. Each member trains on all folds but one, which chooses its
    best epoch. The members answer together.

    Weights count in the training, in the choice of the best epoch, in the temperature and in the
    quantiles of the errors. Rows of weight 0 count as if they were not there. The scales of
    features and targets take each other row once.

    Args:
        table: N rows of features.
        y: (N,) or (N, 1) class numbers from 0, or numbers.
        classes: the number of classes; 0 for a regression.
        recipe: the network and its training.
        folds: the number of members, at least 1. A single one trains on four fifths of the rows.
        kinds: what some columns are; see `Encoding.fit`.
        decimal: the character before the decimals of numbers in text; None to recognise it.
        weights: (N,) weights of the rows, at least 0, or None.
        seed: the seed of the folds, the weights, the order and dropout.
        device: the device to train on.
        threads: the number of members that train at the same time on a CPU; None for as many as
            there are processors. The results do not depend on it.
        time_limit_s: the seconds after which the fit should have ended, or None. Then it plans
            fewer epochs or members if need be, and its results depend on the speed of the machine.
        on_member: a function of the number of a member, from 1, and its curves, which is called
            when its training has ended.

    Raises:
        DataError: no column can be used, or there are fewer rows than folds.
        ShapeError: there is not one target, or one weight, for each row.
        ArgumentError: a number is outside its range.
    """
    y = np.asarray(y)
    if y.shape not in ((len(table),), (len(table), 1)):
        raise ShapeError(
            f"got targets of shape {y.shape} for {len(table)} rows; expected ({len(table)},): pass "
            "one target for each row"
        )
    clock, y, whole = Clock(time_limit_s), y.ravel(), len(table)
    counts: Any = slice(None)  # the rows that count
    if weights is not None:
        weights = training_weights(np.empty((whole, 1)), weights)
        counts = weights > 0
        table, y, weights = table.rows(counts), y[counts], weights[counts]
    recipe, folds = recipe or Recipe(), count("folds", folds)
    encoding = Encoding.fit(table, kinds, decimal)
    codes = encoding(table)
    first = recipes.preprocessing(encoding.levels, codes)
    if classes:
        t, last = y.astype(np.int64), list[Standardize]()
    else:
        last = [Standardize.fit(y.reshape(-1, 1), inverse=True)]
        t = ((y - last[0].mean.numpy()) / last[0].scale.numpy()).astype(np.float32).reshape(-1, 1)
    work = _Work(
        x=first.predict(codes),
        t=t,
        weights=weights,
        fold=folds_of(y, folds if folds > 1 else PARTS, seed),
        numbers=sum(level == 0 for level in encoding.levels),
        classes=classes,
        recipe=recipe,
        seed=seed,
        device=device,
        clock=clock,
    )
    at_once = min(folds, count("threads", get_num_threads() if threads is None else threads))
    if clock.limit is not None:
        folds, work = work.planned(folds, at_once)
    made = work.members(folds, at_once, on_member)
    out_of_fold = np.full((len(y), classes or 1), np.nan, np.float32)
    for k, (_, _, answers) in enumerate(made):
        out_of_fold[work.fold == k] = answers
    known = ~np.isnan(out_of_fold[:, 0])
    shares = None if weights is None else weights[known]
    networks: list[Module] = [network for network, _, _ in made]
    temperature = temperature_of(out_of_fold[known], t[known], shares) if classes else 1.0
    how = ("probabilities", temperature) if classes else ("outputs", 1.0)
    network = Sequential(first, Ensemble(networks, *how), *last).to(networks[0].device)
    limits, errors = None, None
    if not classes:
        out_of_fold = out_of_fold * last[0].scale.numpy() + last[0].mean.numpy()
        limits = float(y.min()), float(y.max())
        sizes = np.abs(out_of_fold[known, 0] - y[known])
        errors = quantiles_of(sizes, shares).tolist()
    model = TableModel(encoding, network, limits=limits, errors=errors, held_out=int(known.sum()))
    found = np.full((whole, out_of_fold.shape[1]), np.nan, out_of_fold.dtype)
    found[counts] = out_of_fold
    return Fitted(model, found, temperature, [history for _, history, _ in made])


Member = tuple[Module, History, Array]


@dataclass(frozen=True)
class _Work:
    """The data and the settings that all members share."""

    x: Array
    t: Array
    weights: Array | None
    fold: Array
    numbers: int
    classes: int
    recipe: Recipe
    seed: int
    device: DeviceLike
    clock: Clock

    def members(
        self, count: int, at_once: int, tell: Callable[[int, History], None] | None
    ) -> list[Member]:
        """Train members, several at once on a CPU. Each has the bits of a fit of its own."""
        threads = at_once if backend(self.device).on_host else 1
        jobs = [partial(self.member, k, tell) for k in range(count)]
        return on_threads(jobs, threads, self.clock.stop)

    def member(self, k: int, tell: Callable[[int, History], None] | None = None) -> Member:
        """Train the member that leaves out fold k."""
        own = int(words(1, (RandomStream(self.seed).seed, MEMBER_STREAM), k)[0]) // 2**10
        is_class, inside, outside = bool(self.classes), self.fold != k, self.fold == k
        network = recipes.network(
            self.recipe,
            self.x.shape[1],
            self.numbers,
            self.classes or 1,
            classes=is_class,
            seed=own,
        )
        history = recipes.train(
            network,
            self.recipe,
            self.x[inside],
            self.t[inside],
            (self.x[outside], self.t[outside]),
            classes=is_class,
            seed=own,
            weights=None if self.weights is None else (self.weights[inside], self.weights[outside]),
            device=self.device,
            clock=self.clock,
        )
        if tell is not None:
            tell(k + 1, history)
        return network, history, network.predict(self.x[outside])

    def planned(self, folds: int, at_once: int) -> tuple[int, _Work]:
        """Choose the members and epochs that the time allows, after a trial of two epochs.

        A member has at least `LEAST_EPOCHS` epochs, unless it is the only one.
        """
        trial = replace(self, recipe=replace(self.recipe, epochs=2))
        with one_thread():
            _, history, _ = trial.member(0)
        epoch = history["seconds"][-1] * 1.1
        allowed = int(self.clock.left() * 0.9 * at_once / epoch)
        folds = min(folds, max(1, allowed // LEAST_EPOCHS))
        rounds = -(-folds // at_once)
        epochs = max(1, min(self.recipe.epochs, int(self.clock.left() * 0.9 / epoch / rounds)))
        return folds, replace(self, recipe=replace(self.recipe, epochs=epochs))
