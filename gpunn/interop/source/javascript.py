"""Write a model as one file in JavaScript, for browsers and for Node.js."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gpunn.columns.cells import MISSING
from gpunn.interop.source.described import Described, shown
from gpunn.interop.source.language import Function
from gpunn.interop.source.program import (
    DEPTH,
    Constant,
    Fold,
    Map,
    Operand,
    Pick,
    Product,
    Program,
    Step,
)
from gpunn.interop.source.python import named, packed
from gpunn.interop.source.writing import ATOM, Language, Written

SUPPORT = """
  const bytesOf = (text) => Uint8Array.from(globalThis.atob(text), (c) => c.charCodeAt(0));
  const numbers = (text) => {{
    const bytes = bytesOf(text), view = new DataView(bytes.buffer), size = {size};
    return {array}.from({{length: bytes.length / size}}, (_, k) => view.{get}(k * size, true));
  }};
  const scaled = (text, scales) => {{
    const codes = new Int8Array(bytesOf(text).buffer);
    return {array}.from(codes, (code, k) => code * scales[k % scales.length]);
  }};
  const product = (x, w, y, groups, depth, columns) => {{
    const sum = new {array}(columns);
    for (let g = 0, at = 0; g < groups; g++) {{
      for (let start = 0; start < depth; start += {depth}) {{
        sum.fill(0);
        for (let k = start; k < Math.min(depth, start + {depth}); k++) {{
          const one = x[g * depth + k];
          for (let c = 0; c < columns; c++) sum[c] += one * w[at++];
        }}
        for (let c = 0, to = g * columns; c < columns; c++, to++)
          y[to] = start ? y[to] + sum[c] : sum[c];
      }}
    }}
  }};
  const total = (x) => {{
    const whole = x.length - x.length % 16, sums = new {array}(16);
    let sum = 0;
    for (let start = 0; start < whole; start += {depth}) {{
      sums.fill(0);
      for (let k = start; k < Math.min(whole, start + {depth}); k++) sums[k % 16] += x[k];
      for (const each of sums) sum += each;
    }}
    for (let k = whole; k < x.length; k++) sum += x[k];
    return sum;
  }};
"""
HELPERS = {
    "erf": "(x) => 1 - _erfc(x)",
    "erfc": """(x) => {
    if (!(Math.abs(x) < 27)) return x > 0 ? 0 : x < 0 ? 2 : x;
    const z = Math.abs(x);
    let tail = 0;
    if (z < 2) {  // 1 - erf(z) by its series
      let term = z, sum = z;
      for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
        term *= (2 * z * z) / (2 * n + 1);
        sum += term;
      }
      tail = 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
    } else {  // a continued fraction
      for (let n = 100; n > 0; n--) tail = (n / 2) / (z + tail);
      tail = Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + tail);
    }
    return x < 0 ? 2 - tail : tail;
  }""",
    "fma": """(x, y, z) => {  // the product's rounding error is added, too
    const p = x * y, s = x * 134217729, t = y * 134217729;
    const a = s - (s - x), b = t - (t - y);
    const rest = (a * b - p) + a * (y - b) + (x - a) * b + (x - a) * (y - b);
    return Number.isNaN(rest) ? p + z : p + z + rest;
  }""",
    "min": "(x, y) => (y !== y || x < y ? x : y)",
    "max": "(x, y) => (y !== y || x > y ? x : y)",
}
"""Functions that `Math` lacks, or that differ from C's."""
NEEDS = {"erf": "erfc"}
ENCODE = """
  // Of each column: codes of texts or null, of other texts, a missing number, whether marked.
  const columns = {cells};
  const words = new Set({missing});
  const blank = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a"
    + "\\u2028\\u2029\\u202f\\u205f\\u3000]+";
  const around = new RegExp(`^${{blank}}|${{blank}}$`, "g");
  const textOf = (cell) => {{  // as gpunn writes cells
    if (cell === null || cell === undefined) return "";
    if (typeof cell === "boolean") return cell ? "True" : "False";
    if (typeof cell !== "number") return String(cell);
    const size = Math.abs(cell), whole = Number.isInteger(cell);
    if (whole && size < 1e15) return String(cell);
    if (size < 1e-4 || size >= 1e16) return cell.toExponential().replace(/-(\\d)$/, "-0$1");
    return whole ? `${{cell}}.0` : String(cell);
  }};
  const encode = (cells) => {{
    const lacking = Array.isArray(cells) ? [] : features.filter((name) => !(name in cells));
    if (lacking.length) throw new RangeError(`got a row without ${{lacking.join(", ")}}`);
    const given = Array.isArray(cells) ? cells : features.map((name) => cells[name]);
    if (given.length !== {n}) throw new RangeError(`got ${{given.length}} cells; expected {n}`);
    const codes = [], categories = [];
    given.forEach((cell, k) => {{
      const [levels, other, middle, marked] = columns[k];
      const written = textOf(cell).replace(around, "");
      const text = words.has(written.toLowerCase()) ? "" : written;
      if (levels !== null) {{
        categories.push(new Map(levels).get(text) ?? other);
        return;
      }}
      const plain = /^[+-]?(\\d+\\.?\\d*|\\.\\d+)(e[+-]?\\d+)?$/i.test(text);
      const value = Math.fround(typeof cell === "number" ? cell : plain ? Number(text) : NaN);
      if (Math.abs(value) === Infinity)
        throw new RangeError(`got ${{cell}}; expected a number that float32 can hold`);
      codes.push(Number.isNaN(value) ? middle : value);
      if (marked) categories.push(Number.isNaN(value) ? 1 : 0);
    }});
    return codes.concat(categories);
  }};
"""
CLASSES = """
  const classes = {classes};
  const classOf = (outputs) => {{  // null if the outputs decide nothing
    const scores = {scores};
    let best = 0;
    for (let k = 0; k < scores.length; k++) {{
      if (Number.isNaN(scores[k])) return null;
      if (scores[k] > scores[best]) best = k;
    }}
    return Number.isFinite(scores[best]) ? classes[best] : null;
  }};
  const classify = (x) => classOf(predict(x));
  const probabilities = (x) => Array.from({chances});
"""
WORDS = frozenset(
    (
        *("arguments", "await", "async", "debugger", "eval", "export", "extends"),
        *("finally", "function", "implements", "import", "in", "instanceof", "interface"),
        *("let", "null", "of", "package", "super", "typeof", "var", "with", "yield"),
        *("Math", "Number"),
    )
)
"""The words of JavaScript that a variable in C++ may have."""


class JavaScript(Language):
    """JavaScript, whose numbers are float64. `Math.fround` rounds them to float32.

    Args:
        functions: the functions that expressions may call.
        single: whether T is float32.
    """

    signs: ClassVar = {"==": "===", "!=": "!=="}

    def __init__(self, functions: Mapping[str, Function], single: bool) -> None:
        super().__init__(functions)
        self.single = single

    def number(self, text: str, kind: str) -> str:
        """Return a number."""
        return repr(float(np.float32(text))) if self.single and kind == "T" else text

    def rounded(self, inner: Written) -> Written:
        """Return a result of arithmetic as a number of its type."""
        if not self.single or inner.type != "T":
            return inner
        return Written(f"Math.fround({inner.text})", ATOM, "T")

    def cast(self, inner: Written, kind: str) -> Written:
        """Return a conversion to a type."""
        if inner.type == "bool":
            return Written(f"Number({inner.text})", ATOM, kind)
        if inner.type == kind:
            return inner
        return self.rounded(inner._replace(type=kind))

    def choice(self, condition: str, yes: str, no: str) -> str:
        """Return the choice between two values."""
        return f"{condition} ? {yes} : {no}"

    def mathematics(self, name: str, given: list[str], kind: str) -> str:
        """Return the call of a function of C's mathematics."""
        known = f"_{name}" if name in HELPERS else f"Math.{name}"
        return f"{known}({', '.join(given)})"

    def own(self, name: str) -> str:
        """Return the name that a function of a program gets."""
        return f"f_{name}"

    def variable(self, name: str) -> str:
        """Return the name that a variable gets."""
        return f"{name}_" if name in WORDS else name

    def function(self, function: Function) -> str:
        """Return the definition of a function."""
        given = ", ".join(self.variable(name) for _, name in function.parameters)
        statements, result = self.statements(function)
        lines = [
            f"    {'let ' if each.type else ''}{self.variable(each.name)} = {text};\n"
            for each, text in statements
        ]
        head = f"  const {self.own(function.name)} = ({given}) =>"
        if not lines:
            return f"{head} {result};\n"
        return f"{head} {{\n{''.join(lines)}    return {result};\n  }};\n"


class _Writer:
    """Write the parts of the file.

    Args:
        model: the model.
    """

    def __init__(self, model: Described) -> None:
        self.model = model
        self.functions = model.functions()
        self.single = model.program.dtype == np.float32
        self.language = JavaScript(self.functions, self.single)
        self.array = f"Float{32 if self.single else 64}Array"

    def program(self, title: str, program: Program) -> str:
        """Return the function that runs a program, with its constants before it."""
        first, last, lines = named(program.input), named(program.output), list[str]()
        for name, numbers in program.constants.items():
            small = self.model.in_int8(program, name)
            made = f'numbers("{packed(numbers)}")'
            if small is not None:
                made = f'scaled("{packed(small[0])}", numbers("{packed(small[1])}"))'
            lines.append(f"  const {title}_{name} = {made};\n")
        lines.append(f"  const {'predict' if title == 'predict' else f'_{title}'} = (x) => {{\n")
        n = program.input.width
        if title == "predict" and not self.model.cells:
            lines.append(
                f"    if (x.length !== {n}) throw new RangeError("
                f"`got ${{x.length}} numbers; expected {n}`);\n"
            )
        given = "encode(x)" if title == "predict" and self.model.cells else "x"
        lines.append(f"    const {first} = {self.array}.from({given});\n")
        for step in program.steps:
            lines.append(f"    const {named(step.out)} = new {self.array}({step.out.width});\n")
            lines.append(self.step(step, title))
        return f"{''.join(lines)}    return {last};\n  }};\n"

    def step(self, step: Step, title: str) -> str:
        """Return the statements of a step."""
        out, width = named(step.out), step.out.width
        loop = f"    for (let i = 0; i < {width}; i++) {out}[i] ="
        if isinstance(step, Product):
            sizes = f"{step.groups}, {step.depth}, {step.columns}"
            return f"    product({named(step.x)}, {title}_{step.weight.name}, {out}, {sizes});\n"
        if isinstance(step, Map):
            given = ", ".join(self.operand(each, title) for each in step.operands)
            return f"{loop} {self.language.own(step.function)}({given});\n"
        if isinstance(step, Fold):
            if step.kind == "sum":
                return f"    {out}[0] = total({named(step.x)});\n"
            two = f"(a, c) => {self.language.own(step.kind)}(a, c)"
            return f"    {out}[0] = {named(step.x)}.reduce({two});\n"
        if isinstance(step, Pick):
            index, x = step.chosen, named(step.x)
            if index == tuple(range(index[0], index[0] + width)):
                return f"    {out}.set({x}.subarray({index[0]}, {index[0] + width}));\n"
            return f"    {list(index)}.forEach((k, i) => {{ {out}[i] = {x}[k]; }});\n"
        lines, start = [], 0
        for part in step.parts:
            lines.append(f"    {out}.set({named(part)}, {start});\n")
            start += part.width
        return "".join(lines)

    def operand(self, operand: Operand, title: str) -> str:
        """Return an operand of a function of elements."""
        if isinstance(operand, float):
            return repr(operand)
        text = f"{title}_{operand.name}" if isinstance(operand, Constant) else named(operand)
        return f"{text}[{'i' if operand.width > 1 else 0}]"

    def file(self) -> str:
        """Return the whole file."""
        model, dtype = self.model, self.model.program.dtype
        programs = [self.program(*each) for each in model.programs().items()]
        own = [self.language.function(each) for each in self.functions.values()]
        needed = [name for name in self.language.used if name in HELPERS]
        needed = list(dict.fromkeys([NEEDS[name] for name in needed if name in NEEDS] + needed))
        known = [f"  const _{name} = {HELPERS[name]};\n" for name in needed]
        get = f"get{self.array.removesuffix('Array')}"
        support = SUPPORT.format(size=dtype.itemsize, array=self.array, get=get, depth=DEPTH)
        public = [f"inputs: {model.inputs}", f"outputs: {model.outputs}"]
        if model.features:
            support += f"  const features = {_json(model.features)};\n"
            public.append("features")
        if model.cells:
            cells = [
                (None if each.levels is None else list(each.levels.items()), *each[2:])
                for each in model.cells
            ]
            words = _json(sorted(MISSING))
            support += ENCODE.format(cells=_json(cells), missing=words, n=model.inputs)
        public.append("predict: (x) => Array.from(predict(x))")
        parts = [support, *known, *own, *programs]
        if model.classes:
            scores = "_scores(outputs)" if model.scores else "outputs"
            given = "_scores(predict(x))" if model.scores else "predict(x)"
            chances = "_chances(predict(x))" if model.chances else given
            texts = {"classes": _json(model.classes), "scores": scores, "chances": chances}
            parts.append(CLASSES.format(**texts))
            public += ["classes", "classOf", "classify", "probabilities"]
        about = (
            f"// {shown(model.name)}: a neural network that gpunn trained. It needs no library.\n"
            f"// It computes in {dtype}, in the order of gpunn's compiled kernels.\n"
        )
        body = f"{''.join(parts)}  return {{{', '.join(public)}}};\n"
        end = f'if (typeof module !== "undefined") module.exports = {model.name};\n'
        return f'{about}const {model.name} = (() => {{\n  "use strict";{body}}})();\n{end}'


def _json(value: object) -> str:
    """Return JSON that may stand in a script of an HTML page."""
    return json.dumps(value).replace("<", "\\u003c")


def script(model: Described) -> str:
    """Return a model as one file in JavaScript."""
    return _Writer(model).file()
