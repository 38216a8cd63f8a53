"""Matrix products with epilogues through cuBLASLt, called with ctypes.

CuPy's own matrix product cannot be captured; a product of cuBLASLt can. The module
`cublaslt_request` turns a product of row-major arrays into one of column-major matrices: cuBLASLt's
A is `b`, its B is `a`, and its C and D are `out`.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import (
    byref,
    c_double,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.bounded import Bounded
from gpunn.backends.cuda.cublaslt_request import (
    Attribute,
    Compute,
    DataType,
    Epilogue,
    Operands,
    Refusal,
    Request,
    attributes_of,
    epilogue_of,
    preferences_of,
    request_of,
    traits,
)
from gpunn.errors import GpunnError
from gpunn.log import logger
from gpunn.typing import Array


class Status(IntEnum):
    """`cublasStatus_t`."""

    SUCCESS = 0
    NOT_INITIALIZED = 1
    ALLOC_FAILED = 3
    INVALID_VALUE = 7
    ARCH_MISMATCH = 8
    MAPPING_ERROR = 11
    EXECUTION_FAILED = 13
    INTERNAL_ERROR = 14
    NOT_SUPPORTED = 15
    LICENSE_ERROR = 16


class MatmulAlgo(ctypes.Structure):
    """`cublasLtMatmulAlgo_t`: plain data without pointers."""

    _fields_ = (("data", c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`."""

    _fields_ = (
        ("algo", MatmulAlgo),
        ("workspaceSize", c_size_t),
        ("state", c_int),
        ("wavesCount", c_float),
        ("reserved", c_int * 4),
    )


_SET = (c_void_p, c_int, c_void_p, c_size_t)
SIGNATURES: dict[str, tuple[Any, ...]] = {  # every function returns a status
    "cublasLtCreate": (c_void_p,),
    "cublasLtDestroy": (c_void_p,),
    "cublasLtMatmulDescCreate": (c_void_p, c_int, c_int),
    "cublasLtMatmulDescSetAttribute": _SET,
    "cublasLtMatmulDescDestroy": (c_void_p,),
    "cublasLtMatrixLayoutCreate": (c_void_p, c_int, c_uint64, c_uint64, c_int64),
    "cublasLtMatrixLayoutDestroy": (c_void_p,),
    "cublasLtMatmulPreferenceCreate": (c_void_p,),
    "cublasLtMatmulPreferenceSetAttribute": _SET,
    "cublasLtMatmulPreferenceDestroy": (c_void_p,),
    "cublasLtMatmulAlgoGetHeuristic": (*(c_void_p,) * 7, c_int, c_void_p, c_void_p),
    "cublasLtMatmul": (*(c_void_p,) * 14, c_size_t, c_void_p),
}
MOST_PLANS = 1024  # a plan has four descriptors of a few hundred bytes
UNKNOWN: Any = object()
STATUS_NAMES = {status.value: status.name for status in Status}


class LibraryNotFound(Exception):
    """The error if cuBLASLt cannot be used; the message says why."""


class CublasLtError(GpunnError, RuntimeError):
    """The error if cuBLASLt returns a status other than success."""


class Plan(NamedTuple):
    """The descriptors and the algorithm for one kind of product.

    Attributes:
        close: frees the descriptors.
    """

    descriptor: c_void_p
    a: c_void_p
    b: c_void_p
    d: c_void_p
    algorithm: MatmulAlgo
    one: Any
    zero: Any
    close: Callable[[], None]


class CublasLt:
    """cuBLASLt on the CUDA device that is current when the object is made.

    The object keeps a plan for each of the latest `MOST_PLANS` combinations of shapes, layouts,
    types, alignments and epilogue. A captured product no longer needs its plan. All products share
    one workspace, so use one stream at a time. Keep the object as long as a graph that was captured
    with it.

    Args:
        library: the functions of cuBLASLt: a `ctypes.CDLL`, or a stand-in of a test.
        xp: the module `cupy`.

    Raises:
        CublasLtError: cuBLASLt cannot make a handle on this device.
    """

    WORKSPACE_BYTES = 32 << 20

    def __init__(self, library: Any, xp: Any) -> None:
        if isinstance(library, ctypes.CDLL):
            for name, types in SIGNATURES.items():
                function = getattr(library, name)
                function.argtypes, function.restype = types, c_int
        self._library, self._xp = library, xp
        self._plans: Bounded[tuple[Any, ...], Plan | None] = Bounded(MOST_PLANS, _free)
        self._workspace: Array | None = None
        self._lock = threading.Lock()  # ctypes lets other threads run between a product's calls
        self._resources = ExitStack()
        self._handle = self._new(self._resources, "")
        self._resources.callback(_free_all, self._plans)  # before the handle
        self._finalizer = weakref.finalize(self, self._resources.close)
        # At exit the driver may be closed first. The end of the process frees everything anyway.
        self._finalizer.atexit = False

    @classmethod
    def find(cls, xp: Any) -> CublasLt:
        """Load the cuBLASLt that `cuda.pathfinder` finds, a package that CuPy depends on.

        Raises:
            LibraryNotFound: the finder or the library is missing.
            CublasLtError: the library cannot use this device.
        """
        try:
            pathfinder = importlib.import_module("cuda.pathfinder")
        except ImportError as error:
            raise LibraryNotFound(f"cuda.pathfinder cannot be imported ({error})") from error
        try:
            path = pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path
            if path is None:  # CDLL(None) would be this process, not the library
                raise LibraryNotFound("cuda.pathfinder gives no path for cuBLASLt")
            library = ctypes.CDLL(path)
        except (RuntimeError, OSError) as error:
            raise LibraryNotFound(f"cuBLASLt cannot be loaded ({error})") from error
        return cls(library, xp)

    def close(self) -> None:
        """Free the handle, the descriptors and the workspace; the object cannot be used again."""
        self._finalizer()
        self._workspace = None

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        epilogue: str = "none",
        bias: Array | None = None,
        aux: Array | None = None,
        tf32: bool = False,
    ) -> bool:
        """Write epilogue(a @ b) to `out`, on the current stream, captured or not.

        The epilogues, where y = a @ b:

        - none: y
        - bias: y + bias
        - relu_bias: relu(y + bias)
        - relu_aux_bias: relu(y + bias); the mask y + bias > 0, one bit per element, goes to `aux`
        - drelu_bgrad: y where the mask `aux` is set, else 0; its sum over rows goes to `bias`
        - bias_grad: y; the sum of `b` over rows goes to `bias`

        Args:
            a: (M, K), row-major with any pitch, or the transpose of such an array; float16,
                bfloat16, float32 or float64.
            b: (K, N), in a layout like that of `a`, of the same dtype.
            out: (M, N), row-major with any pitch; of the same dtype, or float32 for half factors.
            epilogue: one of the above.
            bias: (N,), contiguous; of the dtype of `out`, or of another if cuBLASLt takes it.
            aux: a uint8 array of the shape `cublaslt_request.mask_shape(M, N)`.
            tf32: whether float32 factors may be rounded to TensorFloat-32.

        Returns:
            Whether the product was computed. If cuBLASLt has no algorithm, or an array is empty or
            not as described above, nothing is written.

        Raises:
            ArgumentError: an epilogue lacks its bias or aux, or gets one that it does not take.
            UnknownNameError: there is no such epilogue.
            CublasLtError: a planned product failed, or the object was closed.

        Numerics:
            Sums are in float64 for float64 factors, else in float32. If a product is split along
            K, its parts are added in a separate step. relu_bias keeps NaN: a version whose ReLU
            turns NaN into 0 is not used. The mask of relu_aux_bias may have either bit for NaN.
        """
        kind = epilogue_of(epilogue, bias, aux)
        arrays = Operands(a, b, out, bias, aux)
        key = (kind, tf32, *map(traits, arrays))
        with self._lock:
            if not self._finalizer.alive:
                raise CublasLtError("got a product after close(): make a new CublasLt")
            plan = self._plans.get(key, UNKNOWN)
            if plan is UNKNOWN:
                # Planning uses only the host, so it is allowed in a capture. Usually a warm-up step
                # has made the plan before.
                plan = self._plan_or_none(arrays, tf32, epilogue)
                if plan and kind is Epilogue.RELU_BIAS and not self._keeps_nan(plan, arrays):
                    logger.debug("the ReLU of %s loses NaN, or cannot be tried", arrays)
                    _free(plan)
                    plan = None
                self._plans[key] = plan
            if plan is None:
                return False
            try:
                self._run(plan, arrays)
            except CublasLtError as error:
                raise CublasLtError(
                    f"{error} in the planned product {arrays}, epilogue {epilogue}: run it again "
                    "with CUBLASLT_LOG_LEVEL=5 in the environment to see the reason"
                ) from error
        return True

    def _keeps_nan(self, plan: Plan, arrays: Operands) -> bool:
        """Check that NaN in the factors becomes NaN in the result. Some versions' ReLU returns 0.

        Each plan is tried once. The trial writes to `out`, which the product overwrites later.
        """
        xp = self._xp
        if xp.cuda.get_current_stream().is_capturing():
            return False
        turned = arrays.a.strides[1] != arrays.a.itemsize
        a = arrays.a.T if turned else arrays.a
        pitch = max(a.shape[1], a.strides[0] // a.itemsize)
        broken = xp.full((a.shape[0], pitch), np.nan, a.dtype)[:, : a.shape[1]]
        self._run(plan, arrays._replace(a=broken.T if turned else broken))
        edges = arrays.out[:1], arrays.out[-1:], arrays.out[:, :1], arrays.out[:, -1:]
        return all(np.isnan(xp.asnumpy(edge).astype(np.float32)).all() for edge in edges)

    def make_workspace(self) -> Any:
        """Return the workspace of products, made on first use.

        A mere check of the library should not take so much memory, so `__init__` does not make it.
        """
        if self._workspace is None:
            self._workspace = self._xp.empty(self.WORKSPACE_BYTES, self._xp.uint8)
        return self._workspace

    def _run(self, plan: Plan, arrays: Operands) -> None:
        workspace = self.make_workspace()
        self._point(plan.descriptor, arrays)
        out = c_void_p(arrays.out.data.ptr)
        self._call(
            "cublasLtMatmul",
            *(self._handle, plan.descriptor, byref(plan.one)),
            *(c_void_p(arrays.b.data.ptr), plan.a),
            *(c_void_p(arrays.a.data.ptr), plan.b),
            byref(plan.zero),
            *(out, plan.d),  # C is D, and is not read, because beta is 0
            *(out, plan.d),
            byref(plan.algorithm),
            *(c_void_p(workspace.data.ptr), self.WORKSPACE_BYTES),
            c_void_p(self._xp.cuda.get_current_stream().ptr),
        )

    def _plan_or_none(self, arrays: Operands, tf32: bool, epilogue: str) -> Plan | None:
        """Make a plan; None, with the reason in the log, if cuBLASLt cannot do the product."""
        with ExitStack() as descriptors:  # frees the descriptors of a plan that fails half-way
            try:
                plan = self._plan(descriptors, arrays, request_of(arrays, tf32, epilogue))
            except (Refusal, CublasLtError) as reason:
                logger.debug("cuBLASLt does not do %s, epilogue %s: %s", arrays, epilogue, reason)
                return None
            return plan._replace(close=descriptors.pop_all().close)

    def _plan(self, descriptors: ExitStack, arrays: Operands, request: Request) -> Plan:
        double = request.compute is Compute.COMPUTE_64F
        scale = DataType.R_64F if double else DataType.R_32F
        number = c_double if double else c_float
        descriptor = self._new(descriptors, "MatmulDesc", request.compute, scale)
        for attribute, value in attributes_of(request):
            self._set("MatmulDesc", descriptor, attribute, value)
        # The heuristic does not follow these pointers, but it looks at their alignment.
        self._point(descriptor, arrays)
        a, b, d = (
            self._new(descriptors, "MatrixLayout", view.data_type, view.rows, view.columns, view.ld)
            for view in (request.a, request.b, request.d)
        )
        algorithm = self._choose(request, descriptor, a, b, d, d)
        return Plan(descriptor, a, b, d, algorithm, number(1), number(0), descriptors.close)

    def _choose(self, request: Request, *problem: c_void_p) -> MatmulAlgo:
        found, count = HeuristicResult(), c_int(0)
        with ExitStack() as stack:
            preference = self._new(stack, "MatmulPreference")
            for attribute, value in preferences_of(request, self.WORKSPACE_BYTES):
                self._set("MatmulPreference", preference, attribute, value)
            self._call(
                "cublasLtMatmulAlgoGetHeuristic",
                *(self._handle, *problem, preference),
                *(1, byref(found), byref(count)),
            )
        if not count.value or found.state:
            raise Refusal(f"the heuristic offers no algorithm (state {found.state})")
        algorithm: MatmulAlgo = found.algo
        return algorithm

    def _point(self, descriptor: c_void_p, arrays: Operands) -> None:
        """Set the addresses of bias and aux in a descriptor."""
        for attribute, array in (
            (Attribute.BIAS_POINTER, arrays.bias),
            (Attribute.EPILOGUE_AUX_POINTER, arrays.aux),
        ):
            if array is not None:
                self._set("MatmulDesc", descriptor, attribute, c_void_p(array.data.ptr))

    def _new(self, stack: ExitStack, kind: str, *args: Any) -> c_void_p:
        """Make a handle or descriptor. `stack` destroys it."""
        made = c_void_p()
        self._call(f"cublasLt{kind}Create", byref(made), *args)
        stack.callback(getattr(self._library, f"cublasLt{kind}Destroy"), made)
        return made

    def _set(self, kind: str, descriptor: c_void_p, attribute: IntEnum, value: Any) -> None:
        size_bytes = ctypes.sizeof(value)
        self._call(f"cublasLt{kind}SetAttribute", descriptor, attribute, byref(value), size_bytes)

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            meaning = STATUS_NAMES.get(status, "unknown")
            raise CublasLtError(f"got status {status} ({meaning}) from {name}, expected 0")


def _free(plan: Plan | None) -> None:
    if plan is not None:
        plan.close()


def _free_all(plans: Bounded[Any, Plan | None]) -> None:
    for plan in plans.values():
        _free(plan)
    plans.clear()
