"""The check at the start of a fit that all workers of a group would do the same."""

from __future__ import annotations

import json

import numpy as np

from gpunn.distributed.group import Group
from gpunn.errors import WorkerError


def check_alike(group: Group, texts: dict[str, str]) -> None:
    """Check that all workers have the same texts. Every worker calls this.

    Args:
        group: the workers.
        texts: what decides the numbers of the fit, by name.

    Raises:
        WorkerError: a worker has other texts than the first one. All workers raise it.
    """
    mine = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    size = np.array([mine.size], np.int64).view(np.uint8)
    sizes = group.allgather(size, [size.size] * group.size)
    contents = group.allgather(mine, [int(part.view(np.int64)[0]) for part in sizes])
    first, *others = [json.loads(content.tobytes()) for content in contents]
    for rank, there in enumerate(others, start=1):
        names = [name for name in {**first, **there} if first.get(name) != there.get(name)]
        if names:
            raise WorkerError(
                f"got a worker {rank} with {names[0]} {there.get(names[0], 'nothing')}, and a "
                f"worker 0 with {first.get(names[0], 'nothing')}; expected the same from all "
                "workers: start them with the same program, data, versions and kind of processor"
            )
