"""What a run of the suite is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The options of `gpunn bench`, as they reach a level in an interpreter of its own.

    Attributes:
        only: levels, or parts of them as "steps/wide"; empty for all.
        quick: whether to try the suite rather than to measure.
        compile: whether torch.compile runs, which takes a minute or two a row to compile.
        rounds: of a step, unless they take too long.
        threads: of BLAS.
        coretype: the processor that OpenBLAS is told to compute for; "auto" to let it choose, ""
            to leave what the environment says.
        data_dir: folder with the MNIST files; "" to look where gpunn looks.
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
        """The settings of a JSON object."""
        return cls(**values | {"only": tuple(values["only"])})

    def wants(self, level: str, part: str = "") -> bool:
        """Whether a level, or a part of it, is to be measured."""
        if not self.only:
            return True
        chosen = [one.partition("/") for one in self.only]
        return any(name == level and (not part or rest in ("", part)) for name, _, rest in chosen)
