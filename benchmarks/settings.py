"""The settings of a run of the suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The options of `gpunn bench`, which are passed to the interpreter of each level.

    Attributes:
        only: the levels to run, or parts of them such as "steps/wide"; empty for all.
        quick: whether to try the suite briefly instead of measuring.
        compile: whether to run torch.compile, which takes one or two minutes per row.
        rounds: the number of rounds of a step; fewer if they take too long.
        threads: the number of BLAS threads.
        coretype: the processor that OpenBLAS computes for; "auto" to let OpenBLAS choose, "" for
            the setting of the environment.
        data_dir: the folder with the MNIST files; "" if there is none.
    """

    only: tuple[str, ...] = ()
    quick: bool = False
    compile: bool = False
    rounds: int = 15
    threads: int = 1
    coretype: str = ""
    data_dir: str = ""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Build settings from a JSON object."""
        return cls(**values | {"only": tuple(values["only"])})

    def wants(self, level: str, part: str = "") -> bool:
        """Return whether to measure a level, or a part of it."""
        if not self.only:
            return True
        chosen = [one.partition("/") for one in self.only]
        return any(name == level and (not part or rest in ("", part)) for name, _, rest in chosen)
