"""A test-only stand-in for the library cuBLASLt: what it is passed is read from memory, as C would.

Each function has the C prototype of the header, written down here again, so that a wrong argument
goes wrong as it would with the library. A product is computed from raw addresses, column by
column, with NumPy, and goes through the pretended GPU, which a capture records.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import (
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.standin.machine import MACHINE
from tests.standin.streams import Stream

SUCCESS, INVALID_VALUE, INTERNAL_ERROR, NOT_SUPPORTED = 0, 7, 14, 15
RELU, BIAS, DRELU, BGRAD, AUX, BGRADA = 2, 4, 8, 16, 128, 256
EPILOGUES = {1, BIAS, RELU | BIAS, RELU | AUX | BIAS, DRELU | AUX | BGRAD, BGRADA}
R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77
SUPPORTED = {  # (computed, scaled, factors, result)
    *((COMPUTE_32F, R_32F, kind, kind) for kind in (R_32F, R_16F, R_16BF)),
    *((COMPUTE_32F, R_32F, kind, R_32F) for kind in (R_16F, R_16BF)),
    (COMPUTE_TF32, R_32F, R_32F, R_32F),
    (COMPUTE_64F, R_64F, R_64F, R_64F),
}
ATTRIBUTES = {
    "MatmulDesc": {
        3: ("transa", c_int32),
        4: ("transb", c_int32),
        7: ("epilogue", c_uint32),
        8: ("bias", c_void_p),
        11: ("aux", c_void_p),
        12: ("aux_ld", c_int64),
        26: ("bias_type", c_int32),
    },
    "MatmulPreference": {
        1: ("workspace_bytes", c_uint64),
        3: ("reduction_schemes", c_uint32),
        5: ("align_a", c_uint32),
        6: ("align_b", c_uint32),
        7: ("align_c", c_uint32),
        8: ("align_d", c_uint32),
    },
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {},
    "MatmulDesc": {"transa": 0, "transb": 0, "epilogue": 1, "bias": None, "aux": None, "aux_ld": 0}
    | {"bias_type": -1},
    "MatrixLayout": {},
    "MatmulPreference": {"workspace_bytes": 0, "reduction_schemes": 7}
    | dict.fromkeys(("align_a", "align_b", "align_c", "align_d"), 256),
}
PROTOTYPES = {
    "Create": (c_void_p,),
    "Destroy": (c_void_p,),
    "MatmulDescCreate": (c_void_p, c_int, c_int),
    "MatmulDescSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulDescDestroy": (c_void_p,),
    "MatrixLayoutCreate": (c_void_p, c_int, c_uint64, c_uint64, c_int64),
    "MatrixLayoutDestroy": (c_void_p,),
    "MatmulPreferenceCreate": (c_void_p,),
    "MatmulPreferenceSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulPreferenceDestroy": (c_void_p,),
    "MatmulAlgoGetHeuristic": (*[c_void_p] * 7, c_int, c_void_p, c_void_p),
    "Matmul": (*[c_void_p] * 14, c_size_t, c_void_p),
}


class BadStatus(Exception):
    """Leaves a function as its status."""


def require(condition: Any, status: int = INVALID_VALUE) -> None:
    """End the function with a status unless the condition holds."""
    if not condition:
        raise BadStatus(status)


class HeuristicResult(ctypes.Structure):
    """As in the header."""

    _fields_ = (
        *(("algo", c_uint64 * 8), ("workspace_bytes", c_size_t), ("state", c_int)),
        *(("waves", c_float), ("reserved", c_int * 4)),
    )


@dataclass(frozen=True)
class Problem:
    """What a heuristic was asked, without the pointers; an algorithm fits one of these only."""

    compute: int
    scale: int
    operation: tuple[tuple[str, Any], ...]
    layouts: tuple[tuple[int, int, int, int], ...]

    @property
    def epilogue(self) -> int:
        """Its number."""
        return dict(self.operation)["epilogue"]


@dataclass(frozen=True)
class Call:
    """One product: the problem, what its algorithm was promised, and where it found its data."""

    problem: Problem
    preferences: dict[str, int]
    pointers: tuple[int, int, int, int]
    bias: int | None
    aux: int | None
    workspace: int
    stream: int


class FakeCublasLt:
    """The library.

    Attributes:
        calls: the products.
        asked: the problems that a heuristic was asked about.
        live: what is not yet destroyed, by kind.
        refuse: epilogues that have no algorithm, or what decides that for a `Problem`.
        refusal_status: what the heuristic gives then; 0 comes with a count of 0, as it may.
        status: what the next products give instead of being done, if not 0.
        workspace_bytes: what every algorithm needs.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.asked: list[Problem] = []
        self.refuse: set[int] | Callable[[Problem], bool] = set()
        self.refusal_status = NOT_SUPPORTED
        self.status = SUCCESS
        self.workspace_bytes = 1 << 20
        self.failures: list[Exception] = []
        self._made: dict[int, tuple[str, dict[str, Any]]] = {}
        self._algorithms: list[tuple[Problem, dict[str, int]]] = []
        self._serial = 0
        for name, types in PROTOTYPES.items():
            setattr(self, f"cublasLt{name}", ctypes.CFUNCTYPE(c_int, *types)(self._function(name)))

    @property
    def live(self) -> list[str]:
        """The kinds of what was made and not destroyed, sorted."""
        return sorted(kind for kind, _ in self._made.values())

    def _function(self, name: str) -> Callable[..., int]:
        for end, method in (
            ("SetAttribute", self._set_attribute),
            ("Create", self._create),
            ("Destroy", self._destroy),
        ):
            if name.endswith(end):
                return self._guarded(method, name.removesuffix(end))
        return self._guarded(self._heuristic if name.endswith("Heuristic") else self._matmul)

    def _guarded(self, method: Callable[..., None], *before: Any) -> Callable[..., int]:
        def function(*args: Any) -> int:
            try:
                method(*before, *args)
            except BadStatus as bad:
                return bad.args[0]
            except Exception as error:  # ctypes would print it and return anything
                self.failures.append(error)
                return INTERNAL_ERROR
            return SUCCESS

        return function

    # handles and descriptors -----------------------------------------------------------------

    def _create(self, kind: str, target: int, *args: int) -> None:
        fields = dict(DEFAULTS[kind])
        if kind == "MatmulDesc":
            fields |= {"compute": args[0], "scale": args[1]}
        if kind == "MatrixLayout":
            data_type, rows, columns, ld = args
            require(rows and columns and ld >= rows and data_type in (0, 1, 2, 14))
            fields["layout"] = args
        self._serial += 1
        self._made[self._serial] = kind, fields
        c_void_p.from_address(target).value = self._serial

    def _destroy(self, kind: str, made: int) -> None:
        self._fields(kind, made)
        del self._made[made]

    def _set_attribute(self, kind: str, made: int, which: int, value: int, size: int) -> None:
        fields = self._fields(kind, made)
        require(which in ATTRIBUTES[kind])
        name, ctype = ATTRIBUTES[kind][which]
        require(value and size == ctypes.sizeof(ctype))
        fields[name] = ctype.from_address(value).value

    def _fields(self, kind: str, made: int) -> dict[str, Any]:
        require(made in self._made and self._made[made][0] == kind)
        return self._made[made][1]

    # products --------------------------------------------------------------------------------

    def _problem(self, descriptor: int, layouts: tuple[int, ...]) -> Problem:
        fields = dict(self._fields("MatmulDesc", descriptor))
        operation = {k: v for k, v in fields.items() if k not in ("bias", "aux")}
        compute, scale = operation.pop("compute"), operation.pop("scale")
        shapes = tuple(self._fields("MatrixLayout", made)["layout"] for made in layouts)
        return Problem(compute, scale, tuple(operation.items()), shapes)

    def _heuristic(self, handle: int, descriptor: int, *rest: int) -> None:
        *layouts, preference, wanted, results, count = rest
        self._fields("", handle)
        problem = self._problem(descriptor, tuple(layouts))
        preferences = dict(self._fields("MatmulPreference", preference))
        self.asked.append(problem)
        require(wanted > 0 and results and count)
        c_int.from_address(count).value = 0
        _check_problem(problem, self._fields("MatmulDesc", descriptor))
        sizes = [np.dtype(dtype_of(layout[0])).itemsize for layout in problem.layouts]
        for letter, size in zip("abcd", sizes, strict=True):
            require(preferences[f"align_{letter}"] >= size, NOT_SUPPORTED)
        require(preferences["workspace_bytes"] >= self.workspace_bytes, NOT_SUPPORTED)
        refused = self.refuse(problem) if callable(self.refuse) else problem.epilogue in self.refuse
        require(not refused, self.refusal_status)
        self._algorithms.append((problem, preferences))
        found = HeuristicResult.from_address(results)
        found.algo[0] = len(self._algorithms)
        found.workspace_bytes, found.state = self.workspace_bytes, SUCCESS
        c_int.from_address(count).value = 1

    def _matmul(self, handle: int, descriptor: int, *rest: Any) -> None:
        (alpha, a, la, b, lb, beta, c, lc, d, ld, algo, workspace, workspace_bytes, stream) = rest
        self._fields("", handle)
        require(self.status == SUCCESS, self.status)
        problem = self._problem(descriptor, (la, lb, lc, ld))
        chosen, preferences = self._algorithms[c_uint64.from_address(algo).value - 1]
        require(problem == chosen)
        require(workspace and workspace_bytes >= self.workspace_bytes)
        for letter, pointer in zip("abcd", (a, b, c, d), strict=True):
            require(pointer and pointer % preferences[f"align_{letter}"] == 0)
        fields = self._fields("MatmulDesc", descriptor)
        number = c_double if problem.scale == R_64F else c_float
        product = Product(
            problem,
            (a, b, c, d),
            (number.from_address(alpha).value, number.from_address(beta).value),
            fields["bias"],
            fields["aux"],
        )
        found = (a, b, c, d), fields["bias"], fields["aux"], workspace, stream or 0
        self.calls.append(Call(problem, preferences, *found))
        MACHINE.counters.matmuls += 1
        Stream.known[stream or 0].do(product.run)


def _check_problem(problem: Problem, fields: dict[str, Any]) -> None:
    a, b, c, d = problem.layouts
    require((problem.compute, problem.scale, a[0], d[0]) in SUPPORTED, NOT_SUPPORTED)
    require(a[0] == b[0] and c == d and fields["epilogue"] in EPILOGUES)
    (m, k) = a[1:3] if fields["transa"] == 0 else a[2:0:-1]
    (depth, n) = b[1:3] if fields["transb"] == 0 else b[2:0:-1]
    require(k == depth and d[1:3] == (m, n))
    epilogue = fields["epilogue"]
    # The library would take an unset pointer here for a well aligned one.
    require(fields["bias"] or epilogue == 1)
    if epilogue & AUX:
        require(fields["aux"] and fields["aux_ld"] >= m and fields["aux_ld"] % 128 == 0)


@dataclass(frozen=True)
class Product:
    """The work of one call, with everything that the host knew at the call."""

    problem: Problem
    pointers: tuple[int, int, int, int]
    scalars: tuple[float, float]
    bias: int | None
    aux: int | None

    def run(self) -> None:
        """D = epilogue(alpha op(A) op(B) + beta C)."""
        fields = dict(self.problem.operation)
        wide = np.float64 if self.problem.compute == COMPUTE_64F else np.float32
        a, b, c, d = (
            matrix(pointer, dtype_of(layout[0]), *layout[1:])
            for pointer, layout in zip(self.pointers, self.problem.layouts, strict=True)
        )
        a, b = (x.astype(wide) for x in (a, b))
        a, b = a.T if fields["transa"] else a, b.T if fields["transb"] else b
        alpha, beta = self.scalars
        y = wide(alpha) * (a @ b)
        if beta:
            y += wide(beta) * c.astype(wide)
        d[...] = self._epilogue(fields, a, y)

    def _epilogue(self, fields: dict[str, Any], a: np.ndarray, y: np.ndarray) -> np.ndarray:
        epilogue, (rows, columns) = fields["epilogue"], y.shape
        if self.bias:
            bias_type = self._type(fields["bias_type"])
            bias = matrix(self.bias, bias_type, rows, 1, rows)[:, 0]
        if epilogue & AUX:
            aux = self._aux(fields, rows, columns)
        if epilogue & BIAS:
            y = y + bias.astype(y.dtype)[:, None]
        if epilogue & RELU:
            if epilogue & AUX:
                aux[...] = np.packbits(y > 0, axis=0, bitorder="little")
            y = np.maximum(y, 0)
        if epilogue & DRELU:
            y = y * np.unpackbits(aux, axis=0, count=rows, bitorder="little")
        if epilogue & BGRAD:
            bias[...] = y.sum(axis=1)
        if epilogue & BGRADA:
            bias[...] = a.sum(axis=1)
        return y

    def _aux(self, fields: dict[str, Any], rows: int, columns: int) -> np.ndarray:
        assert self.aux is not None
        return matrix(self.aux, np.uint8, -(-rows // 8), columns, fields["aux_ld"] // 8)

    def _type(self, data_type: int) -> Any:
        return dtype_of(self.problem.layouts[3][0] if data_type == -1 else data_type)


def dtype_of(data_type: int) -> Any:
    """The NumPy type of a `cudaDataType`."""
    if data_type == R_16BF:
        import ml_dtypes

        return ml_dtypes.bfloat16
    return {R_32F: np.float32, R_64F: np.float64, R_16F: np.float16}[data_type]


def matrix(address: int, dtype: Any, rows: int, columns: int, ld: int) -> np.ndarray:
    """The column-major matrix at an address."""
    itemsize = np.dtype(dtype).itemsize
    size_bytes = ((columns - 1) * ld + rows) * itemsize
    memory = (ctypes.c_char * size_bytes).from_address(address)
    return np.ndarray((rows, columns), dtype, memory, strides=(itemsize, ld * itemsize))
