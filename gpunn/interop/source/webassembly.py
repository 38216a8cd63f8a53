"""Compile a model to WebAssembly: its C header, with the compiler of the package ziglang."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from gpunn.errors import MissingExtraError, OutputError
from gpunn.interop.source.c import header
from gpunn.interop.source.described import Described

MAIN = """#include "{name}.h"
#define EXPORT(name) __attribute__((export_name(#name)))
static {T} x[{NAME}_INPUTS], y[{NAME}_OUTPUTS];
EXPORT(input) {T} *input(void) {{ return x; }}
EXPORT(output) {T} *output(void) {{ return y; }}
EXPORT(inputs) int inputs(void) {{ return {NAME}_INPUTS; }}
EXPORT(outputs) int outputs(void) {{ return {NAME}_OUTPUTS; }}
EXPORT(predict) void predict(void) {{ {name}_predict(x, y); }}
"""
CLASSIFY = "EXPORT(classify) int classify(void) {{ predict(); return {name}_class(y); }}\n"
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-O3", "-msimd128", "-s"),
    *("-std=c99", "-ffp-contract=off", "-Wl,--strip-all"),
)
TIMEOUT_S = 300  # zig builds its mathematics on its first call


def webassembly(model: Described) -> bytes:
    """Return a model as a module of WebAssembly without imports.

    Raises:
        ArgumentError: the model is one of a table.
        MissingExtraError: ziglang is not installed.
        OutputError: the compiler refused the text.
    """
    source = header(model)
    if importlib.util.find_spec("ziglang") is None:
        raise MissingExtraError("ziglang", "compiled", "export to WebAssembly")
    kind = "double" if model.program.dtype.itemsize == 8 else "float"
    words = {"name": model.name, "NAME": model.name.upper(), "T": kind}
    text = (MAIN + CLASSIFY * (model.classes is not None)).format(**words)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / f"{model.name}.h").write_text(source, encoding="utf-8")
        (folder / "main.c").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "main.c", "-o", "model.wasm"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            raise OutputError(
                f"got an error of ziglang for the header of {model.name}; expected a module: "
                f"install the newest ziglang ({done.stderr.strip()})"
            )
        return (folder / "model.wasm").read_bytes()
