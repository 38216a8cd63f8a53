"""One fit on any number of workers, or several fits at the same time, with the same bits."""

from gpunn.distributed.alike import check_alike
from gpunn.distributed.exchange import entered, gathered
from gpunn.distributed.group import ALONE, Alone, Group, check_launched_alone, launched, shards_of
from gpunn.distributed.launch import launch
from gpunn.distributed.mpi import MpiGroup, mpi
from gpunn.distributed.nccl import NcclGroup, nccl, workers
from gpunn.distributed.together import fit_together, on_threads
from gpunn.distributed.tree import Place, Tree, places

__all__ = [
    "ALONE",
    "Alone",
    "Group",
    "MpiGroup",
    "NcclGroup",
    "Place",
    "Tree",
    "check_alike",
    "check_launched_alone",
    "entered",
    "fit_together",
    "gathered",
    "launch",
    "launched",
    "mpi",
    "nccl",
    "on_threads",
    "places",
    "shards_of",
    "workers",
]
