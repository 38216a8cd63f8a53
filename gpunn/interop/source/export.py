"""Write a model as one file in another language."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpunn.arguments import lookup
from gpunn.errors import ArgumentError
from gpunn.interop.source.c import header
from gpunn.interop.source.described import Described, describe, identifier
from gpunn.interop.source.javascript import script
from gpunn.interop.source.page import page
from gpunn.interop.source.python import module
from gpunn.interop.source.webassembly import webassembly
from gpunn.nn import Module
from gpunn.storage.atomic import write_atomically

TARGETS: Mapping[str, Callable[[Described], str | bytes]] = {
    "c": header,
    "python": module,
    "javascript": script,
    "html": page,
    "webassembly": webassembly,
}
"""What writes a model in each target language, by the name of the language."""

SUFFIXES = {
    ".h": "c",
    ".py": "python",
    ".js": "javascript",
    ".html": "html",
    ".wasm": "webassembly",
}
"""The target languages by the ends of names of files."""


def to_source(
    model: Any,
    path: str | Path | None = None,
    *,
    target: str | None = None,
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    columns: int | None = None,
    weights: str = "float",
) -> str | bytes:
    """Write a model as one file that needs no library, as it computes in evaluation.

    The formulas of activations are those of their kernels, which are translated. So activations of
    your own that you declare with `gpunn.ops.Activation` can be exported, too.

    Args:
        model: a model of gpunn's modules, or a `TableModel` without dates. The latter takes a row
            of cells, numbers or texts, and can't be written in C or WebAssembly.
        path: the file, which is replaced as a whole; None to write nothing. Functions get their
            names from the name of the file.
        target: "c", one header in C99; "python", a module for the standard library alone;
            "javascript", a script for browsers and Node.js; "html", a page with a form that
            predicts; "webassembly", the header compiled with ziglang, without imports. None to tell
            it by the path.
        classes: the names of the classes, one for each output, or two for a single output. The
            file then has functions for the class and the probabilities, too.
        features: the names of the columns.
        columns: D, the number of columns, if no layer of the model tells it.
        weights: "float"; or "int8" for weights of linear layers in 8 bits with a scale for each
            unit. `round_to_int8` shows what it costs.

    Returns:
        The content of the file: a text, or bytes for WebAssembly.

    Raises:
        ArgumentError: a module or function has no form here, or an argument is outside its range.
            In this case nothing is written.
        UnknownNameError: the target is unknown.
        ShapeError: the layers do not fit each other.
        MissingExtraError: WebAssembly needs ziglang, which is not installed.
        OutputError: the file cannot be written or compiled.

    Example:
        >>> from gpunn.nn import Linear
        >>> print(str(to_source(Linear(2, 1), target="c")).splitlines()[0])
        /* model: a neural network that gpunn trained, as one header. It needs libm alone.
    """
    table = None if isinstance(model, Module) else getattr(model, "encoding", None)
    if not isinstance(model, Module) and table is None:
        raise ArgumentError(
            f"got a {type(model).__name__} to export; expected a module, or a table model: pass "
            "the network"
        )
    if target is None:
        target = SUFFIXES.get(Path(path).suffix) if path is not None else None
        if target is None:
            raise ArgumentError(
                f"got no target for {str(path)!r}; expected a file that ends in "
                f"{', '.join(SUFFIXES)}: rename it, or pass target="
            )
    write = lookup("target", target, TARGETS)
    small = lookup("weights", weights, {"float": False, "int8": True})
    if path is not None and target == "python" and Path(path).stem in sys.stdlib_module_names:
        raise ArgumentError(
            f"got {Path(path).name!r}, the name of a module of Python's own library; expected "
            "another, because programs beside it would import the model in its place: rename it"
        )
    name = identifier("model" if path is None else Path(path).stem)
    if table is None:
        described = describe(model, name, classes, features, columns)
    else:
        network, limits = model.network, model.limits
        names = model.classes if classes is None else classes
        described = describe(network, name, names, None, None, table, limits)
    found = write(replace(described, int8=small))
    if path is not None:
        write_atomically(Path(path), found.encode() if isinstance(found, str) else found)
    return found
