"""Write a model as one file in Python, which needs the standard library alone."""

from __future__ import annotations

import keyword
from base64 import b64encode
from typing import ClassVar

from gpunn.columns.cells import MISSING
from gpunn.interop.source.described import Described, shown
from gpunn.interop.source.language import Function
from gpunn.interop.source.program import (
    Constant,
    Fold,
    Join,
    Map,
    Operand,
    Pick,
    Product,
    Program,
    Step,
    Value,
)
from gpunn.interop.source.writing import ATOM, Language, Written
from gpunn.typing import Array

SUPPORT = '''

def _numbers(text):
    data = b64decode(text)
    return unpack(f"<{len(data) // SIZE}{CODE}", data)


def _rounded(numbers):
    return array(CODE, numbers).tolist()


def _scaled(text, scales):
    codes = array("b", b64decode(text))
    return _rounded(code * scales[k % len(scales)] for k, code in enumerate(codes))


def _columns(w, groups, depth, columns):
    """Return the columns of `groups` matrices (depth, columns)."""
    step = depth * columns
    return [
        [w[g * step + c : (g + 1) * step : columns] for c in range(columns)] for g in range(groups)
    ]


def _products(x, matrices):
    depth = len(matrices[0][0])
    return [
        sum(map(mul, x[g * depth : (g + 1) * depth], column))
        for g, matrix in enumerate(matrices)
        for column in matrix
    ]


def _divide(a, b):
    if b:
        return a / b
    return math.copysign(math.inf, a) * math.copysign(1.0, b) if a and a == a else math.nan
'''
HELPERS = {
    "exp": "return math.exp(x) if x < 709.78 else math.inf if x == x else x",
    "expm1": "return math.expm1(x) if x < 709.78 else math.inf if x == x else x",
    "log": "return math.log(x) if x > 0.0 else x if x != x else math.nan if x else -math.inf",
    "log1p": "return math.log1p(x) if x > -1.0 else x if x != x else "
    "math.nan if x < -1.0 else -math.inf",
    "sqrt": "return math.sqrt(x) if x >= 0.0 else math.nan",
    "cos": "return math.cos(x) if x - x == 0.0 else math.nan",
    "sin": "return math.sin(x) if x - x == 0.0 else math.nan",
    "floor": "return float(math.floor(x)) if x - x == 0.0 else x",
    "pow": "far = math.copysign(math.inf, x) if y % 2.0 == 1.0 else math.inf\n"
    "    try:\n        return math.pow(x, y)\n    except OverflowError:\n        return far\n"
    "    except ValueError:\n        return math.nan if x else far",
    "min": "return x if y != y or x < y else y",
    "max": "return x if y != y or x > y else y",
    "fma": "p = x * y  # the product's rounding error is added, too\n"
    "    s, t = x * 134217729.0, y * 134217729.0\n    a, b = s - (s - x), t - (t - y)\n"
    "    rest = (a * b - p) + a * (y - b) + (x - a) * b + (x - a) * (y - b)\n"
    "    return p + z if rest != rest else p + z + rest",
}
"""The bodies of functions that raise no errors in C."""
GIVEN = {"pow": "x, y", "min": "x, y", "max": "x, y", "fma": "x, y, z"}
PLAIN = {"abs": "abs", "erf": "math.erf", "erfc": "math.erfc", "hypot": "math.hypot"}
PLAIN |= {"tanh": "math.tanh"}
ENCODE = '''
CELLS = {cells}
"""Of each column: codes of texts or None, of other texts, a missing number, whether marked."""
MISSING = frozenset({missing})


def _encode(cells):
    """Return the codes of a row: numbers or texts, "" or None for a missing one."""
    if isinstance(cells, dict):
        cells = [cells[name] for name in FEATURES]
    if len(cells) != INPUTS:
        raise ValueError(f"got {{len(cells)}} cells; expected {{INPUTS}}")
    numbers, categories = [], []
    for cell, (levels, other, middle, marked) in zip(cells, CELLS):
        if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
            cell = int(cell)
        text = "" if cell is None else str(cell).strip()
        text = "" if text.lower() in MISSING else text
        if levels is not None:
            categories.append(float(levels.get(text, other)))
            continue
        try:
            value = float("" if "_" in text else text)
        except ValueError:
            value = math.nan
        if isinstance(cell, str) and math.isinf(value):
            value = math.nan
        try:
            value = unpack("f", pack("f", value))[0]
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            raise ValueError(f"got {{cell!r}}; expected a number that float32 can hold")
        gone = math.isnan(value)
        numbers.append(middle if gone else value)
        if marked:
            categories.append(float(gone))
    return numbers + categories
'''
CLASSES = '''

CLASSES = {classes}


def class_of(outputs):
    """Return the class of the outputs of `predict`; None if they decide nothing."""
    scores = {scores}
    if any(each != each for each in scores):
        return None
    best = max(range(len(scores)), key=scores.__getitem__)
    return CLASSES[best] if math.isfinite(scores[best]) else None


def classify(x):
    """Return the class of a row."""
    return class_of(predict(x))


def probabilities(x):
    """Return the probability of each class for a row."""
    return {chances}
'''


class Python(Language):
    """Python, whose floats are float64."""

    signs: ClassVar = {"&&": "and", "||": "or", "!": "not "}

    def number(self, text: str, kind: str) -> str:
        """Return a number."""
        return text if kind == "int" or {".", "e", "E"} & set(text) else f"{text}.0"

    def cast(self, inner: Written, kind: str) -> Written:
        """Return a conversion to a type."""
        if inner.type == "bool":
            return Written(f"float({inner.text})", ATOM, kind)
        return inner._replace(type=kind)

    def choice(self, condition: str, yes: str, no: str) -> str:
        """Return the choice between two values."""
        return f"{yes} if {condition} else {no}"

    def mathematics(self, name: str, given: list[str], kind: str) -> str:
        """Return the call of a function of C's mathematics."""
        return f"{PLAIN.get(name, f'_{name}')}({', '.join(given)})"

    def divided(self, left: str, right: str) -> Written:
        """Return a quotient, which raises no error for 0."""
        return Written(f"_divide({left}, {right})", ATOM, "T")

    def own(self, name: str) -> str:
        """Return the name that a function of a program gets."""
        return f"f_{name}"

    def variable(self, name: str) -> str:
        """Return the name that a variable gets."""
        return f"{name}_" if keyword.iskeyword(name) or name in ("abs", "float", "math") else name

    def function(self, function: Function) -> str:
        """Return the definition of a function."""
        given = ", ".join(self.variable(name) for _, name in function.parameters)
        statements, result = self.statements(function)
        lines = [f"    {self.variable(each.name)} = {text}\n" for each, text in statements]
        head = f"def {self.own(function.name)}({given}):"
        return f"\n\n{head}\n{''.join(lines)}    return {result}\n"


class _Writer:
    """Write the parts of the file.

    Args:
        model: the model.
    """

    def __init__(self, model: Described) -> None:
        self.model = model
        self.functions = model.functions()
        self.language = Python(self.functions)

    def program(self, title: str, program: Program) -> str:
        """Return the function that runs a program, with its constants before it."""
        shapes = {
            step.weight.name: (step.groups, step.depth, step.columns)
            for step in program.steps
            if isinstance(step, Product)
        }
        arrays = []
        for name, numbers in program.constants.items():
            small = self.model.in_int8(program, name)
            made = f'_numbers("{packed(numbers)}")'
            if small is not None:
                made = f'_scaled("{packed(small[0])}", _numbers("{packed(small[1])}"))'
            if name in shapes:
                made = f"_columns({made}, {', '.join(map(str, shapes[name]))})"
            arrays.append(f"{title}_{name} = {made}\n")
        first, last = named(program.input), named(program.output)
        lines = [f"    {named(s.out)} = {self.rounded(s, title)}\n" for s in program.steps]
        if title == "predict":
            n, what = self.model.inputs, "cells" if self.model.cells else "numbers"
            doc = f'    """Return the {program.output.width} outputs for a row of {n} {what}."""\n'
            check = f'    if len(x) != {n}:\n        raise ValueError(f"got {{len(x)}} numbers; '
            check += f'expected {n}")\n'
            if self.model.cells:
                body = f"{doc}    {first} = _encode(x)\n"
            else:
                body = f"{doc}{check}    {first} = _rounded(map(float, x))\n"
            head = "def predict(x):"
        else:
            head, body = f"def _{title}({first}):", ""
        return f"\n\n{''.join(arrays)}\n\n{head}\n{body}{''.join(lines)}    return {last}\n"

    def rounded(self, step: Step, title: str) -> str:
        """Return the expression of a step's result in the dtype of the program."""
        text = self.step(step, title)
        return text if isinstance(step, Pick | Join) else f"_rounded({text})"

    def step(self, step: Step, title: str) -> str:
        """Return the expression of a step's result, a list."""
        if isinstance(step, Product):
            return f"_products({named(step.x)}, {title}_{step.weight.name})"
        if isinstance(step, Map):
            return self.map(step, title)
        if isinstance(step, Fold):
            if step.kind == "sum":
                return f"[sum({named(step.x)})]"
            return f"[reduce({self.language.own(step.kind)}, {named(step.x)})]"
        if isinstance(step, Pick):
            x, index = named(step.x), step.chosen
            if index == tuple(range(index[0], index[0] + len(index))):
                return f"{x}[{index[0]}:{index[0] + len(index)}]"
            return f"[{x}[k] for k in {list(index)}]"
        assert isinstance(step, Join)
        return " + ".join(map(named, step.parts))

    def map(self, step: Map, title: str) -> str:
        """Return the list of a function's results."""
        given, names, sources = [], iter("abcdefgh"), dict[str, str]()
        for operand in step.operands:
            text, wide = self.operand(operand, title)
            if wide and text not in sources:
                sources[text] = next(names)
            given.append(sources[text] if wide else text)
        call = f"{self.language.own(step.function)}({', '.join(given)})"
        if not sources:
            return f"[{call}]"
        if len(sources) == 1:
            ((text, name),) = sources.items()
            return f"[{call} for {name} in {text}]"
        return f"[{call} for {', '.join(sources.values())} in zip({', '.join(sources)})]"

    def operand(self, operand: Operand, title: str) -> tuple[str, bool]:
        """Return an operand, and whether it is a list of which each element is taken in turn."""
        if isinstance(operand, float):
            return repr(operand), False
        text = f"{title}_{operand.name}" if isinstance(operand, Constant) else named(operand)
        return (text, True) if operand.width > 1 else (f"{text}[0]", False)

    def encode(self) -> str:
        """Return the function that encodes a row of cells; empty for a model of numbers."""
        if self.model.cells is None:
            return ""
        cells = [each[1:] for each in self.model.cells]
        return ENCODE.format(cells=repr(cells), missing=sorted(MISSING))

    def file(self) -> str:
        """Return the whole file."""
        model = self.model
        programs = "".join(self.program(*each) for each in model.programs().items())
        own = [self.language.function(each) for each in self.functions.values()]
        known = [
            f"\n\ndef _{name}({GIVEN.get(name, 'x')}):\n    {HELPERS[name]}\n"
            for name in self.language.used
            if name in HELPERS
        ]
        size, code = model.program.dtype.itemsize, "f" if model.program.dtype.itemsize == 4 else "d"
        sizes = f"INPUTS, OUTPUTS, SIZE, CODE = {model.inputs}, {model.outputs}, {size}, '{code}'\n"
        features = f"FEATURES = {list(model.features)!r}\n" if model.features else ""
        imports = "import math\nfrom array import array\nfrom base64 import b64decode\n"
        imports += "from functools import reduce\nfrom operator import mul\n"
        imports += "from struct import pack, unpack\n"
        doc = (
            f'"""{shown(model.name)}: a neural network that gpunn trained. It needs no library.\n\n'
        )
        doc += "Sums and formulas are computed in float64, so the outputs differ from gpunn's\n"
        doc += "by rounding.\n"
        doc += '"""\n\n'
        parts = [
            doc,
            imports,
            "\n",
            sizes,
            features,
            SUPPORT,
            self.encode(),
            *known,
            *own,
            programs,
        ]
        if model.classes:
            outputs = "_scores(outputs)" if model.scores else "outputs"
            given = "_scores(predict(x))" if model.scores else "predict(x)"
            chances = "_chances(predict(x))" if model.chances else given
            parts.append(
                CLASSES.format(classes=list(model.classes), scores=outputs, chances=chances)
            )
        return "".join(parts)


def named(value: Value) -> str:
    """Return the name of the variable that holds a value."""
    return f"v{value.number}"


def packed(numbers: Array) -> str:
    """Return numbers as base64 of their little-endian bytes."""
    return b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()


def module(model: Described) -> str:
    """Return a model as one file in Python."""
    return _Writer(model).file()
