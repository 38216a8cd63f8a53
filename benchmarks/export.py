"""Exported models beside `predict`: size, time of a row, difference, memory of the C form.

    python -m benchmarks.export --output export.json

Every form computes the same 10,000 rows in a process of its own, several times; the smallest time
counts. `predict` and onnxruntime get single rows, too, in this process. Needs gcc, node and
ziglang; forms whose tool is missing are left out. onnxruntime is measured if it is installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn
from gpunn.benchmarks.machine import machine
from gpunn.benchmarks.settings import Settings
from gpunn.errors import MissingExtraError
from gpunn.interop import to_onnx, to_source

ROWS, ROUNDS, SLOW_ROWS = 10_000, 5, 300
SHAPES = {"64-32-10": (64, 32, 10), "784-256-256-10": (784, 256, 256, 10)}
C_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "net.h"
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(void) {
  static float x[NET_INPUTS], y[NET_OUTPUTS];
  double seconds = 0; long rows = 0;
  FILE *out = fopen("y.bin", "wb");
  while (fread(x, sizeof x, 1, stdin) == 1) {
    const double begun = now(); net_predict(x, y); seconds += now() - begun;
    fwrite(y, sizeof y, 1, out); ++rows;
  }
  char line[256]; long kib = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) sscanf(line, "VmHWM: %ld", &kib);
  printf("{\\"us\\": %g, \\"kib\\": %ld}", 1e6 * seconds / rows, kib);
  return 0;
}
"""
JS_MAIN = """
const fs = require("fs"), model = require("./net.js"), bytes = fs.readFileSync(0);
const x = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), rows = [];
for (let k = 0; k < x.length; k += model.inputs)
  rows.push(Array.from(x.subarray(k, k + model.inputs)));
let found = rows.map(model.predict);
const begun = process.hrtime.bigint(); found = rows.map(model.predict);
const us = Number(process.hrtime.bigint() - begun) / 1e3 / rows.length;
fs.writeFileSync("y.bin", Buffer.from(new Float32Array(found.flat()).buffer));
console.log(JSON.stringify({us}));
"""
WASM_MAIN = """
const fs = require("fs"), bytes = fs.readFileSync(0);
const net = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync("net.wasm"))).exports;
net._initialize();
const x = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const row = new Float32Array(net.memory.buffer, net.input(), net.inputs());
const y = new Float32Array(net.memory.buffer, net.output(), net.outputs());
const all = new Float32Array(x.length / row.length * y.length);
let begun;
for (let turn = 0; turn < 2; ++turn) {
  begun = process.hrtime.bigint();
  for (let k = 0; k * row.length < x.length; ++k) {
    row.set(x.subarray(k * row.length, (k + 1) * row.length));
    net.predict();
    all.set(y, k * y.length);
  }
}
const us = Number(process.hrtime.bigint() - begun) / 1e3 / (x.length / row.length);
fs.writeFileSync("y.bin", Buffer.from(all.buffer));
console.log(JSON.stringify({us}));
"""
PY_MAIN = """
import array, json, sys, time
import net
given = array.array("f", sys.stdin.buffer.read())
rows = [list(given[k : k + net.INPUTS]) for k in range(0, len(given), net.INPUTS)]
begun = time.perf_counter()
found = [net.predict(row) for row in rows]
us = 1e6 * (time.perf_counter() - begun) / len(rows)
open("y.bin", "wb").write(array.array("f", [v for row in found for v in row]).tobytes())
print(json.dumps({"us": us}))
"""
FORMS = {
    "C": ("net.h", "main.c", C_MAIN, "gcc"),
    "C, int8": ("net.h", "main.c", C_MAIN, "gcc"),
    "WebAssembly": ("net.wasm", "main.js", WASM_MAIN, "node"),
    "JavaScript, int8": ("net.js", "main.js", JS_MAIN, "node"),
    "JavaScript": ("net.js", "main.js", JS_MAIN, "node"),
    "Python": ("net.py", "main.py", PY_MAIN, sys.executable),
    "HTML": ("net.html", "", "", ""),
}
"""The file, the program that runs it, its text, and what runs or compiles the program."""


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a network with the weights of a start."""
    gn.manual_seed(0)
    pairs = list(pairwise(sizes))
    hidden = [nn.Linear(*pair, activation="relu") for pair in pairs[:-1]]
    return nn.Sequential(*hidden, nn.Linear(*pairs[-1]))


def run(form: str, net: nn.Sequential, x: Any, expected: Any) -> dict[str, Any]:
    """Export a network in one form and run it; return its figures."""
    file, program, text, tool = FORMS[form]
    weights = "int8" if "int8" in form else "float"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        to_source(net, folder / file, weights=weights)
        found: dict[str, Any] = {"bytes": (folder / file).stat().st_size}
        if not tool:
            return found
        (folder / program).write_text(text)
        command = [tool, program]
        if tool == "gcc":
            flags = ["-O3", "-march=native", "-ffp-contract=off", "main.c", "-o", "main", "-lm"]
            subprocess.run([tool, *flags], cwd=folder, check=True)
            command = ["./main"]
            sizes = subprocess.run(["size", "main"], cwd=folder, capture_output=True, text=True)
            found["segments"] = sum(map(int, sizes.stdout.splitlines()[-1].split()[:3]))
        rows = x[:SLOW_ROWS] if form == "Python" and x.shape[1] > 100 else x
        turns = []
        for _ in range(1 if form == "Python" else ROUNDS):
            done = subprocess.run(
                command, cwd=folder, input=rows.tobytes(), capture_output=True, check=True
            )
            turns.append(json.loads(done.stdout))
        y = np.frombuffer((folder / "y.bin").read_bytes(), np.float32).reshape(len(rows), -1)
        wanted = expected[: len(rows)]
        found |= min(turns, key=lambda turn: turn["us"])
        found["rows"] = len(rows)
        found["largest difference"] = float(np.abs(y - wanted).max())
        found["same bits"] = bool((y == wanted).all())
        found["other classes"] = int((y.argmax(1) != wanted.argmax(1)).sum())
    return found


def single(call: Any, x: Any) -> float:
    """Return the microseconds of a row, the smallest of the rounds."""
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for k in range(1000):
            call(x[k : k + 1])
        found.append(1e3 * (time.perf_counter() - begun))
    return min(found)


def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Return the figures of all forms of one network."""
    net = network(sizes)
    x = np.random.default_rng(0).standard_normal((ROWS, sizes[0])).astype(np.float32)
    expected = np.concatenate([net.predict(x[k : k + 1]) for k in range(ROWS)])
    compiled = net.compile() if hasattr(net, "compile") else None
    found: dict[str, Any] = {"predict": {"us": single(net.predict, x)}}
    if compiled is not None:
        found["compiled predictor"] = {"us": single(compiled, x)}
    try:
        import onnxruntime
    except ImportError:
        pass
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "net.onnx"
            to_onnx(net, path)
            session = onnxruntime.InferenceSession(str(path), options)
            name = session.get_inputs()[0].name
            run_once = lambda row: session.run(None, {name: row})[0]  # noqa: E731
            y = np.concatenate([run_once(x[k : k + 1]) for k in range(ROWS)])
            found["onnxruntime"] = {
                "us": single(run_once, x),
                "bytes": path.stat().st_size,
                "largest difference": float(np.abs(y - expected).max()),
            }
    for form, (_, _, _, tool) in FORMS.items():
        if tool and not shutil.which(tool):
            continue
        with suppress(MissingExtraError):
            found[form] = run(form, net, x, expected)
    found["largest output"] = float(np.abs(expected).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure exported models.")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    results = {"machine": machine(Settings()), "shapes": {}}
    for name, sizes in SHAPES.items():
        results["shapes"][name] = measure(sizes)
        print(name)
        for form, figures in results["shapes"][name].items():
            print(f"  {form:20} {figures}")
    if given.output:
        given.output.write_text(re.sub(r"\s+$", "", json.dumps(results, indent=1)) + "\n")


if __name__ == "__main__":
    main()
