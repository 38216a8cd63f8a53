"""Compile and run models that were written as source in other languages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gpunn.interop import to_source
from tests.netcases import D

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
EXACT = ("-O3", "-march=native", "-ffp-contract=off")

MAIN = """
#include <stdio.h>
#include "{name}.h"
int main(void) {{
  {T} x[{NAME}_INPUTS], y[{NAME}_OUTPUTS];
  while (fread(x, sizeof x, 1, stdin) == 1) {{
    {name}_predict(x, y);
    fwrite(y, sizeof y, 1, stdout);
  }}
  return 0;
}}
"""
CLASSES_C = """
#include <stdio.h>
#include "net.h"
int main(void) {
  float x[NET_INPUTS], y[NET_OUTPUTS];
  while (fread(x, sizeof x, 1, stdin) == 1) {
    net_predict(x, y);
    puts(net_class_name(net_class(y)));
  }
  return 0;
}
"""
ROWS_JS = """
const model = require("./{name}.js");
const rows = JSON.parse(require("fs").readFileSync(0), (key, v) =>
  typeof v === "string" ? Number(v) : v);
const told = (v) => typeof v === "number" && !Number.isFinite(v) ? String(v) : v;
console.log(JSON.stringify(rows.map(model.{called}), (key, v) => told(v)));
"""
ROWS_PY = """
import json, sys
import {name}
print(json.dumps([{name}.{called}(row) for row in json.load(sys.stdin)]))
"""


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def done(command, folder, text):
    """The output of a command, as it is."""
    ended = subprocess.run(command, cwd=folder, input=text, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    return ended.stdout


def compiled(folder, main, language="c99", flags=EXACT):
    """The program of a C file that includes the header in the folder."""
    compiler = tool("g++" if "++" in language else "gcc")
    source, program = folder / f"main.{'cpp' if '++' in language else 'c'}", folder / "program"
    source.write_text(main)
    command = [compiler, f"-std={language}", *STRICT, *flags, str(source), "-o", str(program)]
    done([*command, "-lm"], folder, b"")
    return program


def rows_c(folder, name, x, kind=np.float32, language="c99", flags=EXACT):
    """The outputs of `NAME_predict` for rows."""
    words = {"name": name, "NAME": name.upper(), "T": np.dtype(kind).name.replace("32", "")}
    words["T"] = words["T"].replace("float64", "double")
    program = compiled(folder, MAIN.format(**words), language, flags)
    found = done([program], folder, np.ascontiguousarray(x, kind).tobytes())
    return np.frombuffer(found, kind).reshape(len(x), -1)


def rows_javascript(folder, name, x, called="predict"):
    """What a function of the script returns for each row."""
    (folder / "rows.js").write_text(ROWS_JS.format(name=name, called=called))
    rows = json.dumps([[v if np.isfinite(v) else str(v) for v in row] for row in x.tolist()])
    rows = rows.replace('"nan"', '"NaN"').replace('inf"', 'Infinity"')
    found = json.loads(done([tool("node"), "rows.js"], folder, rows.encode()))
    if called != "predict":
        return found
    return np.array([[float(v) for v in row] for row in found])


def rows_python(folder, name, x, called="predict"):
    """What a function of the module returns for each row, in a Python without site packages."""
    (folder / "rows.py").write_text(ROWS_PY.format(name=name, called=called))
    rows = json.dumps(x.tolist()).encode()
    plain = [sys.executable, "-E", "-s", "-S", "-W", "error", "rows.py"]
    found = json.loads(done(plain, folder, rows))
    return np.array(found) if called == "predict" else found


RUN = {"c": rows_c, "javascript": rows_javascript, "python": rows_python}
SUFFIX = {"c": "h", "javascript": "js", "python": "py"}
NAMES = ['a "quoted" name', "back\\slash", "élm ??/ </script> */"]


def outputs(net, target, folder, x, **options):
    """The outputs of a network for rows, from a file in another language."""
    to_source(net, folder / f"net.{SUFFIX[target]}", columns=x.shape[1], **options)
    return RUN[target](folder, "net", x)


def rows(n=20, width=D, seed=2):
    return (2 * np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


def called(target, folder, x):
    """The class of each row; None if there is none."""
    if target == "c":
        text = done([compiled(folder, CLASSES_C)], folder, x.tobytes()).decode()
        return [line or None for line in text.split("\n")[:-1]]
    return {"javascript": rows_javascript, "python": rows_python}[target](
        folder, "net", x, "classify"
    )
