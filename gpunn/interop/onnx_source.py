"""Read the graph of an ONNX file within limits, as docs/untrusted_files.md says.

Nothing in the file is executed, and a constant is read only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpunn.errors import MissingExtraError, ModelFileError
from gpunn.storage.untrusted.bounded_json import shortened, shown
from gpunn.storage.untrusted.regular_file import opened
from gpunn.storage.untrusted.wire import check_messages

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, TensorProto

Array = np.ndarray[Any, Any]

MAX_BYTES = 2**31  # a protobuf message is smaller
MAX_PARTS = 2**19  # fields of messages; each takes about 150 bytes of memory
MAX_NODES = 2**16
MAX_AXES = 8
OLDEST_OPSET = 9  # in which all operators had today's shapes
FLOATS: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
}
NUMBERS: dict[int, np.dtype[Any]] = {**FLOATS, 6: np.dtype(np.int32), 7: np.dtype(np.int64)}
"""The dtypes that are read, by ONNX's numbers."""


class Node(NamedTuple):
    """One operator of the graph.

    Attributes:
        name: its name, or the name of its first output.
        kind: the operator, with its domain unless that is ONNX's own.
        inputs: the names of the values that it takes; "" for one that is left out.
        output: the name of its first output.
        attributes: the numbers, texts and lists that were given.
    """

    name: str
    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class Source:
    """The graph of a file: its operators and constants by the names of their values.

    Copies (Identity, and casts from one kind of floats to another) are left out: a name stands for
    the value that was copied.

    Attributes:
        nodes: the operators by the names of their outputs, in the order of computation.
        input: the name of the input.
        shape: the sizes of the input behind the first axis, 0 for unknown ones; None if the file
            does not say.
        outputs: for each output of the file, the name of its value and its dtype; None for another
            kind of value than floats.
    """

    def __init__(self, proto: ModelProto, size_bytes: int, folder: Path | None) -> None:
        graph = proto.graph
        self._size_bytes, self._folder = size_bytes, folder
        self._outside = dict[str, int]()  # the sizes of constants in other files
        _check_opset(proto)
        self._tensors = {each.name: each for each in graph.initializer}
        self._turned: dict[str, str] = {}  # transposed constants
        self._alias: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        if len(graph.node) > MAX_NODES or len(proto.functions):
            raise ValueError(
                f"it has {len(graph.node)} operators and {len(proto.functions)} functions, more "
                f"than {MAX_NODES} and 0"
            )
        self.input, self.shape = self._only_input(graph)
        self._read(graph.node)
        self.outputs = {
            each.name: (self.resolved(each.name), FLOATS.get(each.type.tensor_type.elem_type))
            for each in graph.output
        }

    def _only_input(self, graph: Any) -> tuple[str, list[int] | None]:
        inputs = [each for each in graph.input if each.name not in self._tensors]
        if len(inputs) != 1:
            raise ValueError(
                f"it has {len(inputs)} inputs ({', '.join(shown(i.name) for i in inputs[:8])}), "
                "and a network has one"
            )
        given = inputs[0].type.tensor_type
        if given.elem_type not in NUMBERS:
            raise ValueError(f"its input {shown(inputs[0].name)} is no array of numbers")
        if not given.HasField("shape"):
            return inputs[0].name, None
        sizes = [max(int(dim.dim_value), 0) for dim in given.shape.dim]
        if not 2 <= len(sizes) <= MAX_AXES:
            raise ValueError(f"its input has {len(sizes)} axes, and (N, D) has two")
        return inputs[0].name, sizes[1:]

    def _read(self, nodes: Iterable[Any]) -> None:
        """Keep the operators, after checking that each takes what was there before it."""
        known = {"", self.input, *self._tensors}
        for each in nodes:
            outputs = [name for name in each.output if name]
            if not outputs or not known.isdisjoint(outputs) or not known.issuperset(each.input):
                what = f"{shown(each.name or outputs[:1])} ({shown(each.op_type)})"
                raise ValueError(
                    f"its operator {what} has an input that nothing computes before it, or an "
                    "output that is there already"
                )
            known.update(outputs)
            own = each.domain in ("", "ai.onnx")
            kind = each.op_type if own else f"{each.domain}.{each.op_type}"
            attributes = {a.name: _value(a) for a in each.attribute}
            inputs = [self.resolved(name) for name in each.input]
            while inputs and not inputs[-1]:
                inputs.pop()
            node = Node(each.name or outputs[0], kind, inputs, each.output[0], attributes)
            if not self._left_out(node):
                self.nodes[node.output] = node

    def _left_out(self, node: Node) -> bool:
        """Return whether an operator is a constant or a copy, and keep in mind what it is."""
        first = node.inputs[0] if node.inputs else ""
        if node.kind == "Constant" and not node.inputs:
            self._tensors[node.output] = next(iter(node.attributes.values()), None)
        elif first and (node.kind == "Identity" or self._is_cast(node)):
            self._alias[node.output] = first
        elif node.kind == "Transpose" and first in self._tensors:
            perm = node.attributes.get("perm", [1, 0])
            if perm != [1, 0] or first in self._turned:
                return False
            self._tensors[node.output] = self._tensors[first]
            self._turned[node.output] = first
        else:
            return False
        return True

    def _is_cast(self, node: Node) -> bool:
        """Return whether an operator converts numbers to floats; truth values are none."""
        if node.kind != "Cast" or node.attributes.get("to") not in FLOATS:
            return False
        before = self.nodes.get(node.inputs[0])
        return before is None or before.kind not in TRUTHS

    @property
    def read_bytes(self) -> int:
        """The size of the file, with the constants in other files that were read."""
        return self._size_bytes + sum(self._outside.values())

    def resolved(self, name: str) -> str:
        """Return the name of the value that a name stands for."""
        return self._alias.get(name, name)

    def is_constant(self, name: str) -> bool:
        """Return whether the file has the value of a name."""
        return name in self._tensors

    def constant(self, name: str) -> Array | None:
        """Return a constant; None if the name is none, or one of something other than numbers.

        Raises:
            ValueError: the file does not hold the constant that it declares.
        """
        given = self._tensors.get(name)
        if given is None or isinstance(given, bytes | str):
            return None
        if isinstance(given, int | float | list):
            found: Array | None = np.asarray(given)
        else:
            found = _array(given, self._folder)
            if found is not None and given.data_location == given.EXTERNAL:
                self._outside[name] = found.nbytes
        if found is None or found.dtype.kind not in "fiu":
            return None
        return found.T if name in self._turned and found.ndim == 2 else found


TRUTHS = {
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor"),
    *("IsNaN", "IsInf"),
}


def _check_opset(proto: ModelProto) -> None:
    from onnx import defs

    found = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    newest = defs.onnx_opset_version()
    if len(found) != 1 or not OLDEST_OPSET <= found[0] <= newest:
        raise ValueError(
            f"its operators are of version {found[0] if found else 'none'}, and the installed onnx "
            f"and gpunn know {OLDEST_OPSET} to {newest}"
        )


def _value(attribute: AttributeProto) -> Any:
    """Return the value of an attribute; floats with the digits that someone wrote."""
    kind = attribute.type
    if kind == attribute.FLOAT:
        return as_written(attribute.f)
    if kind == attribute.INT:
        return int(attribute.i)
    if kind == attribute.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == attribute.TENSOR:
        return attribute.t
    if kind == attribute.INTS:
        return list(attribute.ints)
    return [as_written(f) for f in attribute.floats] if kind == attribute.FLOATS else None


def as_written(number: float) -> float:
    """Return the shortest decimal number that float32 rounds to this one, such as 0.1."""
    return float(str(np.float32(number)))


def _array(tensor: TensorProto, folder: Path | None) -> Array | None:
    """Return the numbers of a tensor, after comparing its size with the bytes that are there."""
    from onnx import numpy_helper

    dtype, shape = NUMBERS.get(tensor.data_type), list(tensor.dims)
    if dtype is None:
        return None
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise ValueError(f"its constant {shown(tensor.name)} has the shape {shown(shape)}")
    count = prod(shape)
    if tensor.data_location == tensor.EXTERNAL:
        content = _external(tensor, count * dtype.itemsize, folder)
        return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    if tensor.HasField("raw_data"):
        there = len(tensor.raw_data) // dtype.itemsize
    else:
        fields = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data)
        there = max(map(len, fields))
    if there != count:
        raise ValueError(
            f"its constant {shown(tensor.name)} of shape {shown(shape)} has {there} numbers"
        )
    found: Array = numpy_helper.to_array(tensor)
    return found


def _external(tensor: TensorProto, wanted: int, folder: Path | None) -> bytes:
    """Return the bytes of a constant in another file, which must lie beside the ONNX file."""
    given = {each.key: each.value for each in tensor.external_data}
    name = given.get("location", "")
    if folder is None or not name or Path(name).name != name or "\\" in name or ":" in name:
        raise ValueError(
            f"its constant {shown(tensor.name)} is in the file {shown(name)}; only a file in the "
            "folder of the ONNX file is read, and only if its path was given"
        )
    start, length = (
        int(given.get(key, default)) if given.get(key, "0").isdecimal() else -1
        for key, default in (("offset", "0"), ("length", str(wanted)))
    )
    with opened(folder / name, follow=False) as (file, there):
        if start < 0 or length != wanted or start + length > there:
            raise ValueError(
                f"its constant {shown(tensor.name)} has {wanted} bytes, which are not where it "
                f"says in the file {shown(name)} of {there} bytes"
            )
        file.seek(start)
        content = file.read(length)
    if len(content) != wanted:
        raise ValueError(f"the file {shown(name)} became shorter while it was read")
    return content


def read_source(source: Any) -> tuple[Source, str]:
    """Read the graph of a file, of its bytes or of a parsed model.

    Returns:
        The graph, and what it is called in messages.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelFileError: the file cannot be read, or is no ONNX file with one input.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "import from ONNX") from error

    what, folder = "an ONNX model", None
    try:
        if isinstance(source, onnx.ModelProto):
            return Source(source, source.ByteSize(), None), what
        if isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
        else:
            path = Path(source)
            what, folder = str(path), path.parent
            with opened(path) as (file, length):
                if length >= MAX_BYTES:
                    raise ValueError(
                        f"it has {length} bytes, and an ONNX file has fewer than 2**31"
                    )
                content = file.read(length)
        root = onnx.ModelProto.DESCRIPTOR
        check_messages(content, _kinds(root), root.full_name, MAX_PARTS)
        return Source(onnx.ModelProto.FromString(content), len(content), folder), what
    except (ValueError, DecodeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise unreadable(what, error) from error


def _kinds(root: Any) -> dict[str, dict[int, str]]:
    """Return the messages inside each kind of message, by the numbers of their fields."""
    found, pending = dict[str, dict[int, str]](), [root]
    while pending:
        kind = pending.pop()
        if kind.full_name not in found:
            inner = {each.number: each.message_type for each in kind.fields if each.message_type}
            found[kind.full_name] = {number: each.full_name for number, each in inner.items()}
            pending += inner.values()
    return found


def unreadable(what: str, why: object) -> ModelFileError:
    """Return the error for a file that cannot become a network."""
    return ModelFileError(
        f"got {what}, which cannot be read ({shortened(why)}); expected an ONNX model of a fully "
        "connected network with one input: export it again, or check the path"
    )
