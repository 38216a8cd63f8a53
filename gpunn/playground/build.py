"""Compile the kernels of the playground, which come with the package.

pip install ziglang==0.17.1
python -m gpunn.playground.build
"""

from __future__ import annotations

from gpunn.playground.catalogue import catalogue
from gpunn.playground.document import DIGEST, KERNELS, digest, page
from gpunn.playground.kernels import webassembly


def main() -> None:
    """Compile the kernels, and say how large the page is.

    Raises:
        MissingExtraError: ziglang is not installed.
        OutputError: the compiler refused the source.
    """
    source, _ = catalogue()
    KERNELS.write_bytes(webassembly(source))
    DIGEST.write_text(f"{digest(source)}\n", encoding="utf-8")
    print(f"{KERNELS}: {KERNELS.stat().st_size:,} bytes; the page has {len(page()):,}")


if __name__ == "__main__":
    main()
