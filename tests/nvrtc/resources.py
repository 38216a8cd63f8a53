"""Print what the main kernels use of a multiprocessor: registers, shared memory, threads at once.

    pip install ".[nvrtc]" nvidia-cuda-nvcc
    python -m tests.nvrtc.resources

The kernels are compiled as CuPy compiles them, for float32 arrays; `ptxas` comes with nvcc. A row
kernel that keeps rows in registers has a second form for short rows. "Occupancy" is the part of a
multiprocessor's 2,048 threads that fit at the same time. "Spilled" are bytes of a thread's numbers
that do not fit into its registers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpunn.backends.cuda.source import THREADS
from gpunn.backends.kernel import KERNELS, Elementwise
from tests.nvrtc.check import elementwise_text, network_steps
from tests.nvrtc.compiler import ptx

ARCHS = (80, 90, 100)
MAIN = (
    *("relu_bias", "relu_grad", "relu_bias_dropout", "relu_grad_dropout", "sigmoid_grad"),
    *("gelu", "random_words", "adam", "sgd", "judged", "window", "advance", "gather_rows"),
    *("softmax_cross_entropy", "classifier_loss", "softmax", "column_sums", "layer_norm"),
    *("layer_norm_grad_in_one", "rms_norm", "batch_norm"),
)
REGISTERS, SHARED_BYTES, MOST_THREADS, MOST_BLOCKS = 65536, 164 << 10, 2048, 32
"""Of a multiprocessor; those of later generations than 80 have more shared memory."""


class Use(NamedTuple):
    """What a kernel uses, as ptxas says."""

    registers: int
    spilled_bytes: int
    shared_bytes: int

    def occupancy(self, threads: int) -> float:
        """The part of a multiprocessor's threads that fit at once, in blocks of some threads."""
        warps = -(-threads // 32)
        of_a_warp = -(-self.registers * 32 // 256) * 256  # registers are given in units of 256
        shared = -(-(self.shared_bytes + 1024) // 128) * 128  # each block has 1 KiB for the system
        blocks = min(
            MOST_BLOCKS,
            MOST_THREADS // threads,
            REGISTERS // (of_a_warp * warps),
            SHARED_BYTES // shared,
        )
        return blocks * threads / MOST_THREADS


def find_ptxas() -> Path:
    """The program of the package nvidia-cuda-nvcc."""
    import nvidia

    for folder in nvidia.__path__:
        for path in Path(folder).glob("cu*/bin/ptxas"):
            return path
    sys.exit("got no ptxas; expected that of the package nvidia-cuda-nvcc: install it with pip")


def used(text: str, name: str, arch: int) -> Use:
    """Compile a text, and return what the kernel uses of a multiprocessor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_bytes(ptx(text, arch, name))
        options = ["-v", f"-arch=sm_{arch}", "-o", path.with_suffix(".bin")]
        said = subprocess.run(
            [find_ptxas(), *options, path], check=True, capture_output=True, text=True
        ).stderr
    own = said[said.index(f"Compiling entry function '{name}'") :]
    own = own[: own.index("Compile time")]
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", own)))
    shared = re.search(r"(\d+) bytes smem", own)
    registers = re.search(r"Used (\d+) registers", own)
    assert registers is not None, own
    return Use(int(registers[1]), spilled, int(shared[1]) if shared else 0)


def rows() -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for name, text, entry, threads in texts():
        uses = [used(text, entry, arch) for arch in ARCHS]
        each = (
            [str(u.registers) for u in uses],
            [str(u.spilled_bytes) for u in uses],
            [str(u.shared_bytes) for u in uses[:1]],
            [f"{u.occupancy(threads):.0%}" for u in uses],
        )
        yield (name, str(threads), *map(" ".join, each))


def texts() -> Iterator[tuple[str, str, str, int]]:
    """The name of each kernel, its text, the name of its function, and the threads of a block."""
    for name in MAIN:
        kernel = KERNELS[name]
        if isinstance(kernel, Elementwise):
            text = elementwise_text(kernel, "float32", "packed")
            yield name, text, f"gpunn_{name}", THREADS
            continue
        dtype = kernel.dtypes[0]
        yield name, kernel.source(dtype), name, kernel.threads
        few = kernel.held(4, 1)
        if few < kernel.held(4, None) and "hold(" in kernel.text:
            yield f"{name}, short rows", kernel.source(dtype, few), name, kernel.threads
    for name, kernel in network_steps():
        if name in ("relu and adam", "relu, dropout, guard and adam"):
            title = f"network_step, {name}"
            yield title, kernel.source("float32", 4), "network_step", kernel.threads


def main() -> None:
    """Print the table."""
    import gpunn.train  # noqa: F401 - declares its kernels, and so do all the modules below it

    numbers = " ".join(map(str, ARCHS))
    titles = ("kernel", "threads", f"registers, sm_{numbers}", "spilled", "shared", "occupancy")
    for row in (titles, ("---",) * len(titles), *rows()):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
