"""The translation of a product of row-major arrays to cuBLASLt's terms.

cuBLASLt knows only column-major matrices. The memory of a row-major matrix is that of its
transpose in column-major order. The product out = a @ b is therefore computed as
out^T = b^T @ a^T: cuBLASLt's A is `b`, its B is `a`, and a row of its D is a column of `out`. No
array is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_int32, c_int64, c_uint32, c_uint64
from enum import IntEnum
from typing import Any, NamedTuple

from gpunn.arguments import lookup
from gpunn.errors import ArgumentError
from gpunn.typing import Array, Shape

MAX_ALIGNMENT_BYTES = 16  # enough for packed loads; a larger one would mean more plans per shape
MASK_BITS = 128  # the length of a row of a ReLU's mask is a multiple of this


class DataType(IntEnum):
    """`cudaDataType`."""

    R_32F = 0
    R_64F = 1
    R_16F = 2
    R_16BF = 14


class Compute(IntEnum):
    """`cublasComputeType_t`."""

    COMPUTE_32F = 68
    COMPUTE_64F = 70
    COMPUTE_32F_FAST_TF32 = 77


class Operation(IntEnum):
    """`cublasOperation_t`."""

    OP_N = 0
    OP_T = 1


class Epilogue(IntEnum):
    """`cublasLtEpilogue_t`."""

    DEFAULT = 1
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU_BGRAD = 152
    BGRADA = 256


class ReductionScheme(IntEnum):
    """`cublasLtReductionScheme_t`: the ways to add the parts of a product that is split along K."""

    NONE = 0
    COMPUTE_TYPE = 2
    OUTPUT_TYPE = 4


class Attribute(IntEnum):
    """`cublasLtMatmulDescAttributes_t`."""

    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12
    BIAS_DATA_TYPE = 26


class Preference(IntEnum):
    """`cublasLtMatmulPreferenceAttributes_t`."""

    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


EPILOGUES = {
    "none": Epilogue.DEFAULT,
    "bias": Epilogue.BIAS,
    "relu_bias": Epilogue.RELU_BIAS,
    "relu_aux_bias": Epilogue.RELU_AUX_BIAS,
    "drelu_bgrad": Epilogue.DRELU_BGRAD,
    "bias_grad": Epilogue.BGRADA,
}
WITH_AUX = (Epilogue.RELU_AUX_BIAS, Epilogue.DRELU_BGRAD)
R_32F, R_64F = DataType.R_32F, DataType.R_64F
HALF = (DataType.R_16F, DataType.R_16BF)
DATA_TYPES = {
    "float16": DataType.R_16F,
    "bfloat16": DataType.R_16BF,
    "float32": DataType.R_32F,
    "float64": DataType.R_64F,
}


class Refusal(Exception):
    """The reason why cuBLASLt does not do a product. `CublasLt.matmul` catches it."""


class Operands(NamedTuple):
    """The arrays of one product. Bias and aux are None if the epilogue does not take them."""

    a: Array
    b: Array
    out: Array
    bias: Array | None
    aux: Array | None

    def __str__(self) -> str:
        a, b, out = (f"{x.shape} {x.dtype.name}" for x in (self.a, self.b, self.out))
        return f"{a} @ {b} -> {out}"


class View(NamedTuple):
    """The column-major matrix in the memory of an array.

    Attributes:
        data_type: the type of its elements.
        rows: the number of its rows. The elements of a column are contiguous in memory.
        columns: the number of its columns.
        ld: the leading dimension: the elements from the start of one column to that of the next.
        operation: OP_N if it is the transpose of the array, OP_T if it is the array itself.
    """

    data_type: DataType
    rows: int
    columns: int
    ld: int
    operation: Operation


class Request(NamedTuple):
    """One product in cuBLASLt's terms; `aux_ld` is the pitch of the mask in bits, or 0."""

    epilogue: Epilogue
    compute: Compute
    a: View
    b: View
    d: View
    alignments: tuple[int, ...]
    bias_type: DataType
    aux_ld: int


def mask_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the shape of the uint8 mask of a ReLU whose result is (rows, columns)."""
    return rows, -(-columns // MASK_BITS) * (MASK_BITS // 8)


def epilogue_of(name: str, bias: Array | None, aux: Array | None) -> Epilogue:
    """Return the epilogue with this name, and check that it gets the arrays that it needs.

    Raises:
        UnknownNameError: there is no such epilogue.
        ArgumentError: the epilogue lacks its bias or aux, or gets one that it does not take.
    """
    epilogue = lookup("epilogue", name, EPILOGUES)
    needed = {"bias": epilogue is not Epilogue.DEFAULT, "aux": epilogue in WITH_AUX}
    for companion, array in (("bias", bias), ("aux", aux)):
        got, expected = array is not None, needed[companion]
        if got != expected:
            raise ArgumentError(
                f"got {'a' if got else 'no'} {companion} with epilogue {name!r}, which "
                f"{'needs' if expected else 'takes'} {'one' if expected else 'none'}: "
                f"{'pass' if expected else 'leave out'} {companion}"
            )
    return epilogue


def traits(array: Array | None) -> Any:
    """Return the properties of an array that a plan depends on, as a key."""
    if array is None:
        return None
    return array.shape, array.strides, array.dtype, _alignment(array)


def _alignment(array: Array) -> int:
    """Return the largest power of two, at most 16, that divides the address in bytes."""
    return int(min(array.data.ptr & -array.data.ptr, MAX_ALIGNMENT_BYTES))


def request_of(arrays: Operands, tf32: bool, epilogue: str) -> Request:
    """Translate a product to cuBLASLt's terms.

    Raises:
        Refusal: cuBLASLt is not used for these layouts, shapes or dtypes.
    """
    kind = EPILOGUES[epilogue]
    a, b, d = (_column_major(array) for array in (arrays.b, arrays.a, arrays.out))
    if d.operation is not Operation.OP_N:
        raise Refusal("out is not row-major")
    (m, k), (depth, n) = arrays.a.shape, arrays.b.shape
    if k != depth or arrays.out.shape != (m, n):
        raise Refusal("the shapes do not fit each other")
    if a.data_type is not b.data_type:
        raise Refusal("the factors differ in dtype")
    if d.data_type is not a.data_type and not (a.data_type in HALF and d.data_type is R_32F):
        raise Refusal("out has neither the dtype of the factors nor float32 for half ones")
    compute = Compute.COMPUTE_64F if a.data_type is R_64F else Compute.COMPUTE_32F
    if tf32 and a.data_type is R_32F:
        compute = Compute.COMPUTE_32F_FAST_TF32
    return Request(
        *(kind, compute, a, b, d),
        alignments=tuple(map(_alignment, (arrays.b, arrays.a, arrays.out, arrays.out))),
        bias_type=d.data_type if arrays.bias is None else _bias_type(arrays.bias, n),
        aux_ld=0 if arrays.aux is None else _aux_ld(arrays.aux, m, n),
    )


def _data_type(array: Array) -> DataType:
    found = DATA_TYPES.get(array.dtype.name)
    if found is None:
        raise Refusal(f"{array.dtype.name} is not one of {', '.join(DATA_TYPES)}")
    return found


def _column_major(array: Array) -> View:
    if array.ndim != 2 or 0 in array.shape:
        raise Refusal(f"shape {array.shape} is not that of a non-empty matrix")
    data_type, (rows, columns) = _data_type(array), array.shape
    ld = _pitch(array.shape, array.strides, array.itemsize)
    if ld:
        return View(data_type, columns, rows, ld, Operation.OP_N)
    ld = _pitch(array.shape[::-1], array.strides[::-1], array.itemsize)
    if ld:
        return View(data_type, rows, columns, ld, Operation.OP_T)
    raise Refusal(f"strides {array.strides} are neither row-major nor their transpose")


def _pitch(shape: Shape, strides: Shape, itemsize: int) -> int:
    """Return the elements from row to row of a row-major matrix; 0 for any other array."""
    (rows, columns), (down, across) = shape, strides
    if columns > 1 and across != itemsize:
        return 0
    if rows == 1:  # the stride of an axis of length 1 can be any number in NumPy and CuPy
        return columns
    return 0 if down % itemsize or down < columns * itemsize else down // itemsize


def _bias_type(bias: Array, size: int) -> DataType:
    if bias.shape != (size,) or (size > 1 and bias.strides[0] != bias.itemsize):
        raise Refusal(f"a bias of shape {bias.shape} and strides {bias.strides}")
    return _data_type(bias)


def _aux_ld(aux: Array, m: int, n: int) -> int:
    """Return the pitch of a mask, in bits."""
    fits = aux.ndim == 2 and aux.dtype == "uint8" and aux.shape[0] == m and 8 * aux.shape[1] >= n
    ld = 8 * _pitch(aux.shape, aux.strides, aux.itemsize) if fits else 0
    if not ld or ld % MASK_BITS:
        raise Refusal(f"aux has shape {aux.shape}, strides {aux.strides}, dtype {aux.dtype.name}")
    return ld


def attributes_of(request: Request) -> Iterator[tuple[Attribute, Any]]:
    """Yield the attributes of a descriptor, apart from its pointers."""
    yield Attribute.TRANSA, c_int32(request.a.operation)
    yield Attribute.TRANSB, c_int32(request.b.operation)
    yield Attribute.EPILOGUE, c_uint32(request.epilogue)
    if request.bias_type is not request.d.data_type:  # the default
        yield Attribute.BIAS_DATA_TYPE, c_int32(request.bias_type)
    if request.aux_ld:
        yield Attribute.EPILOGUE_AUX_LD, c_int64(request.aux_ld)


def preferences_of(request: Request, workspace_bytes: int) -> Iterator[tuple[Preference, Any]]:
    """Yield the constraints on the choice of an algorithm."""
    yield Preference.MAX_WORKSPACE_BYTES, c_uint64(workspace_bytes)
    # Adding the parts of a split product in place is not allowed, because its order is not fixed.
    # The parts of a half result must not be stored in the output's type, because they would be
    # rounded, or overflow, before they are added.
    schemes = ReductionScheme.NONE | ReductionScheme.COMPUTE_TYPE
    if request.d.data_type not in HALF:
        schemes |= ReductionScheme.OUTPUT_TYPE
    yield Preference.REDUCTION_SCHEME_MASK, c_uint32(schemes)
    for letter, alignment in zip("ABCD", request.alignments, strict=True):
        yield Preference[f"MIN_ALIGNMENT_{letter}_BYTES"], c_uint32(alignment)
