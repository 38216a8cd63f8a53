"""Write a model as one header in C99, which C++ takes, too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.interop.source.described import Described, shown
from gpunn.interop.source.language import Function
from gpunn.interop.source.program import (
    DEPTH,
    Fold,
    Map,
    Operand,
    Pick,
    Product,
    Program,
    Step,
    Value,
    places_of,
)
from gpunn.interop.source.writing import UNARY, Language, Written
from gpunn.typing import Array

PER_LINE = 8  # numbers

SUPPORT = """
/* Sums keep the order of gpunn's compiled kernels. Compile with -O3 -ffp-contract=off: then no
 * other products and sums are fused. Where the processor has a fused multiply-add, products of
 * matrices use it, as gpunn does. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
#if defined({FAST}) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define {NAME}_MULTIPLY_ADD(a, b, c) {fma}(a, b, c)
#else
#define {NAME}_MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif
"""
PRODUCT = """
/* Columns that are added up side by side, in vector registers. */
#if defined(__AVX2__)
#define {NAME}_TILE 128
#else
#define {NAME}_TILE 32
#endif

/* y (columns) = x (depth) w (depth, columns) */
static inline void {name}_product(const {T} *x, const {T} *w, {T} *y, int depth, int columns) {{
  for (int j = 0; j < columns; j += {NAME}_TILE) {{
    const int wide = columns - j < {NAME}_TILE ? columns - j : {NAME}_TILE;
    for (int start = 0; start < depth; start += {DEPTH}) {{
      const int end = depth - start < {DEPTH} ? depth : start + {DEPTH};
      {T} sum[{NAME}_TILE] = {{0}};
      if (wide == {NAME}_TILE) {{
        for (int k = start; k < end; ++k)
          for (int c = 0; c < {NAME}_TILE; ++c)
            sum[c] = {NAME}_MULTIPLY_ADD(x[k], w[k * columns + j + c], sum[c]);
      }} else {{
        for (int k = start; k < end; ++k)
          for (int c = 0; c < wide; ++c)
            sum[c] = {NAME}_MULTIPLY_ADD(x[k], w[k * columns + j + c], sum[c]);
      }}
      for (int c = 0; c < wide; ++c) y[j + c] = start ? y[j + c] + sum[c] : sum[c];
    }}
  }}
}}
"""
PRODUCT_INT8 = """
/* y (columns) = scale (columns) * x (depth) w (depth, columns) */
static inline void {name}_product_int8(const {T} *x, const signed char *w, const {T} *scale, {T} *y,
                                       int depth, int columns) {{
  for (int j = 0; j < columns; ++j) y[j] = 0;
  for (int k = 0; k < depth; ++k)
    for (int j = 0; j < columns; ++j)
      y[j] = {NAME}_MULTIPLY_ADD(x[k], w[k * columns + j], y[j]);
  for (int j = 0; j < columns; ++j) y[j] *= scale[j];
}}
"""
SUM = """
static inline {T} {name}_sum(const {T} *x, int columns) {{
  double sum = 0;
  const int whole = columns - columns % 16;
  for (int start = 0; start < whole; start += {DEPTH}) {{
    const int end = whole - start < {DEPTH} ? whole : start + {DEPTH};
    {T} sums[16] = {{0}};
    for (int k = start; k < end; k += 16)
      for (int j = 0; j < 16; ++j) sums[j] += x[k + j];
    for (int j = 0; j < 16; ++j) sum += sums[j];
  }}
  for (int k = whole; k < columns; ++k) sum += x[k];
  return ({T})sum;
}}
"""
CLASSES = """
/* The class with the largest of the scores, from 0; -1 if that score is not finite. */
static inline int {name}_largest(const {T} *scores) {{
  int best = 0;
  for (int k = 0; k < {count}; ++k) {{
    if (scores[k] != scores[k]) return -1;
    if (scores[k] > scores[best]) best = k;
  }}
  return scores[best] - scores[best] == 0 ? best : -1;
}}

/* The class of the outputs of {name}_predict, from 0; -1 if they decide nothing. */
static inline int {name}_class(const {T} *outputs) {{
{scored}}}

static inline const char *{name}_class_name(int number) {{
  static const char *const names[{count}] = {{{names}}};
  return number < 0 || number >= {count} ? "" : names[number];
}}
"""


class C(Language):
    """C99 in float or double.

    Args:
        functions: the functions that expressions may call.
        name: the prefix of all names.
        dtype: float32 or float64.
    """

    def __init__(self, functions: Mapping[str, Function], name: str, dtype: np.dtype) -> None:
        super().__init__(functions)
        self.name, self.single = name, dtype == np.float32
        self.kinds = {"T": "float" if self.single else "double", "double": "double"}
        self.kinds |= {"bool": "int", "int": "int"}

    def number(self, text: str, kind: str) -> str:
        """Return a number."""
        if kind == "int":
            return text
        text = text if {".", "e", "E"} & set(text) else f"{text}.0"
        return f"{text}f" if kind == "T" and self.single else text

    def cast(self, inner: Written, kind: str) -> Written:
        """Return a conversion to a type."""
        if inner.type == kind:
            return inner
        text = inner.text if inner.level > UNARY else f"({inner.text})"
        return Written(f"({self.kinds[kind]}){text}", UNARY, kind)

    def choice(self, condition: str, yes: str, no: str) -> str:
        """Return the choice between two values."""
        return f"{condition} ? {yes} : {no}"

    def mathematics(self, name: str, given: list[str], kind: str) -> str:
        """Return the call of a function of C's mathematics."""
        known = {"abs": "fabs", "min": "fmin", "max": "fmax"}.get(name, name)
        known += "f" if self.single and kind == "T" else ""
        return f"{known}({', '.join(given)})"

    def own(self, name: str) -> str:
        """Return the name that a function of a program gets."""
        return f"{self.name}_f_{name}"

    def function(self, function: Function) -> str:
        """Return the definition of a function."""
        given = ", ".join(f"{self.kinds[kind]} {name}" for kind, name in function.parameters)
        statements, result = self.statements(function)
        lines = [
            f"  {f'{self.kinds[each.type]} ' if each.type else ''}{each.name} = {text};\n"
            for each, text in statements
        ]
        unused = [f"  (void){n};\n" for n in self._unused(function)]
        head = f"static inline {self.kinds['T']} {self.own(function.name)}({given})"
        return f"{head} {{\n{''.join(unused + lines)}  return {result};\n}}\n"

    def _unused(self, function: Function) -> list[str]:
        text = repr(function.body) + repr(function.result)
        return [name for _, name in function.parameters if f"Name(name={name!r})" not in text]

    def literal(self, number: float, kind: str = "T") -> str:
        """Return a number with all its digits."""
        digits = 9 if self.single and kind == "T" else 17
        return self.number(f"{number:.{digits}g}", kind)


class _Writer:
    """Write the parts of the header.

    Args:
        model: the model.
    """

    def __init__(self, model: Described) -> None:
        self.model = model
        self.functions = model.functions()
        self.language = C(self.functions, model.name, model.program.dtype)
        self.kind = self.language.kinds["T"]

    def array(self, name: str, numbers: Array) -> str:
        """Return the definition of a constant array."""
        texts = [self.language.literal(float(each)) for each in numbers]
        lines = [", ".join(texts[k : k + PER_LINE]) for k in range(0, len(texts), PER_LINE)]
        head = f"static const {self.kind} {self.model.name}_{name}[{len(texts)}]"
        return f"{head} = {{\n  " + ",\n  ".join(lines) + "};\n"

    def codes(self, name: str, numbers: Array) -> str:
        """Return the definition of a constant array of small integers."""
        texts = [str(each) for each in numbers.ravel().tolist()]
        lines = [",".join(texts[k : k + 4 * PER_LINE]) for k in range(0, len(texts), 4 * PER_LINE)]
        head = f"static const signed char {self.model.name}_{name}[{len(texts)}]"
        return f"{head} = {{\n  " + ",\n  ".join(lines) + "};\n"

    def text(self, template: str, **values: object) -> str:
        """Return a part of the header that does not depend on the layers."""
        fma = "fmaf" if self.language.single else "fma"
        name = self.model.name
        known = {"name": name, "NAME": name.upper(), "T": self.kind, "fma": fma}
        known["FAST"] = f"FP_FAST_{fma.upper()}"
        return template.format(**known, DEPTH=DEPTH, **values)

    def program(self, title: str, program: Program, given: str, result: str) -> str:
        """Return the function that runs a program, with its constants before it."""
        places, size = places_of(program)
        arrays = ""
        for name, numbers in program.constants.items():
            small = self.model.in_int8(program, name)
            if small is None:
                arrays += self.array(f"{title}_{name}", numbers)
            else:
                arrays += self.codes(f"{title}_{name}", small[0])
                arrays += self.array(f"{title}_{name}_scale", small[1])
        ends = {program.input.number: given, program.output.number: result}

        def at(value: Value) -> str:
            if value.number in ends:
                return ends[value.number]
            offset = places[value.number]
            return f"(s + {offset})" if offset else "s"

        lines = [self.step(step, at, title, program) for step in program.steps]
        scratch = f"  static {self.kind} s[{size}];\n" if size else ""
        head = f"static inline void {self.model.name}_{title}(const {self.kind} *{given}, "
        return f"{arrays}\n{head}{self.kind} *{result}) {{\n{scratch}{''.join(lines)}}}\n"

    def step(self, step: Step, at: object, title: str, program: Program) -> str:
        """Return the statements of a step."""
        assert callable(at)
        name, out = self.model.name, at(step.out)
        if isinstance(step, Product):
            weight = f"{name}_{title}_{step.weight.name}"
            if self.model.in_int8(program, step.weight.name):
                sizes = f"{step.depth}, {step.columns}"
                given = f"{at(step.x)}, {weight}, {weight}_scale, {out}, {sizes}"
                return f"  {name}_product_int8({given});\n"
            call = f"{name}_product({at(step.x)}{{x}}, {weight}{{w}}, "
            call += f"{out}{{y}}, {step.depth}, {step.columns});\n"
            if step.groups == 1:
                return "  " + call.format(x="", w="", y="")
            offsets = {"x": f" + g * {step.depth}", "y": f" + g * {step.columns}"}
            offsets["w"] = f" + g * {step.depth * step.columns}"
            return f"  for (int g = 0; g < {step.groups}; ++g) {call.format(**offsets)}"
        if isinstance(step, Map):
            kinds = [kind for kind, _ in self.functions[step.function].parameters]
            pairs = zip(step.operands, kinds, strict=True)
            given = ", ".join(self.operand(each, kind, at, title) for each, kind in pairs)
            call = f"{out}[i] = {self.language.own(step.function)}({given});\n"
            return f"  for (int i = 0; i < {step.out.width}; ++i) {call}"
        if isinstance(step, Fold):
            x, width = at(step.x), step.x.width
            if step.kind == "sum":
                return f"  {out}[0] = {name}_sum({x}, {width});\n"
            rest = f"{out}[0] = {self.language.own(step.kind)}({out}[0], {x}[i]);\n"
            return f"  {out}[0] = {x}[0];\n  for (int i = 1; i < {width}; ++i) {rest}"
        if isinstance(step, Pick):
            return self.pick(step, at(step.x), out)
        lines, start = [], 0
        for part in step.parts:
            to = f"{out}[{start} + i]" if start else f"{out}[i]"
            lines.append(f"  for (int i = 0; i < {part.width}; ++i) {to} = {at(part)}[i];\n")
            start += part.width
        return "".join(lines)

    def pick(self, step: Pick, x: str, out: str) -> str:
        """Return the statements that copy chosen elements."""
        index, width = step.chosen, step.out.width
        if index == tuple(range(index[0], index[0] + width)):
            first = f"{index[0]} + " if index[0] else ""
            return f"  for (int i = 0; i < {width}; ++i) {out}[i] = {x}[{first}i];\n"
        places = ", ".join(map(str, index))
        return (
            f"  {{\n    static const int at[{width}] = {{{places}}};\n"
            f"    for (int i = 0; i < {width}; ++i) {out}[i] = {x}[at[i]];\n  }}\n"
        )

    def operand(self, operand: Operand, kind: str, at: object, title: str) -> str:
        """Return an operand of a function of elements."""
        assert callable(at)
        if isinstance(operand, float):
            return self.language.literal(operand, kind)
        place = "i" if operand.width > 1 else "0"
        if isinstance(operand, Value):
            return f"{at(operand)}[{place}]"
        return f"{self.model.name}_{title}_{operand.name}[{place}]"

    def classes(self) -> str:
        """Return the functions for classes."""
        model, lines = self.model, "  return {name}_largest(outputs);\n"
        names = model.classes or ()
        if model.scores:
            lines = f"  {{T}} scores[{len(names)}];\n  {{name}}_scores(outputs, scores);\n"
            lines += "  return {name}_largest(scores);\n"
        texts = ", ".join(map(quoted, names))
        return self.text(CLASSES, count=len(names), scored=self.text(lines), names=texts)

    def header(self) -> str:
        """Return the whole header."""
        model, parts = self.model, list[str]()
        steps = [step for program in model.programs().values() for step in program.steps]
        products = [step.weight.name for step in steps if isinstance(step, Product)]
        small = [name for name in products if model.in_int8(model.program, name)]
        if len(small) < len(products):
            parts.append(self.text(PRODUCT))
        if small:
            parts.append(self.text(PRODUCT_INT8))
        if any(isinstance(step, Fold) and step.kind == "sum" for step in steps):
            parts.append(self.text(SUM))
        parts += [f"\n{self.language.function(each)}" for each in self.functions.values()]
        ends = {"predict": ("x", "y"), "scores": ("y", "scores"), "chances": ("y", "p")}
        for title, program in model.programs().items():
            parts.append("\n" + self.program(title, program, *ends[title]))
        if model.classes:
            parts.append(self.classes())
        upper = model.name.upper()
        sizes = f"#define {upper}_INPUTS {model.inputs}\n#define {upper}_OUTPUTS {model.outputs}\n"
        guard = f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <math.h>\n"
        support = self.text(SUPPORT)
        return f"{self.about()}\n{guard}\n{sizes}{support}{''.join(parts)}\n#endif\n"

    def about(self) -> str:
        """Return the comment at the start."""
        model, name = self.model, self.model.name
        lines = [
            f"{name}: a neural network that gpunn trained, as one header. It needs libm alone.",
            "",
            f"{name}_predict(x, y) reads x[{model.inputs}] and writes y[{model.outputs}], which "
            "must not overlap.",
            "It allocates nothing. Its working memory is static, so one call runs at a time.",
        ]
        if model.int8:
            lines.append("Weights of linear layers have 8 bits, with a scale for each unit.")
        if model.classes:
            lines.append(f"{name}_class(y) is the number of the class, {name}_class_name its name.")
        if model.chances:
            lines.append(f"{name}_chances(y, p) writes the probabilities of the classes.")
        lines += [f"x[{k}]: {shown(each)}" for k, each in enumerate(model.features or ())]
        return "/* " + "\n * ".join(lines).replace(" \n", "\n") + " */"


def quoted(text: str) -> str:
    """Return a string of C with the UTF-8 bytes of a text."""
    plain = (
        chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}"
        for b in text.encode("utf-8", "replace")
    )
    return f'"{"".join(plain)}"'


def header(model: Described) -> str:
    """Return a model as one header in C99.

    Raises:
        ArgumentError: the model is one of a table.
    """
    if model.cells is not None:
        raise ArgumentError(
            "got a model of a table, whose cells are texts; expected a model of numbers for C: "
            "export to Python, JavaScript, a page, or ONNX"
        )
    return _Writer(model).header()
