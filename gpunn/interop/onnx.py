"""Export models as ONNX files, for runtimes without gpunn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.errors import ArgumentError, MissingExtraError
from gpunn.interop.onnx_answers import Answer, largest_of, of_two
from gpunn.interop.onnx_draft import INPUT, UNKNOWN, Draft, Value
from gpunn.interop.onnx_layers import whole
from gpunn.nn import Module
from gpunn.storage.atomic import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto

FIRST_OPSET = 17  # the first with layer normalisation
ML_OPSET = 2  # of ai.onnx.ml, the first with codes of texts
LARGEST_BYTES = 2**31 - 2**20  # a protobuf message must be smaller than 2 GiB


def to_onnx(
    model: Any,
    path: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    opset: int = 17,
    float16: bool = False,
    batch: str | int = "N",
) -> ModelProto:
    """Export a model to ONNX, as it computes in evaluation.

    Unless the model is one of a table, the input of the graph is called `input`, (N, D) floats. Its
    dtype is float16 for a float16 model, and otherwise float32. The numbers of a float64 model are
    rounded to float32, because not every runtime computes in float64.

    Args:
        model: a model of gpunn's modules with registered activations, or a fitted estimator of
            `gpunn.sklearn`, or a `TableModel`. A regressor has the output `output`, (N, K). A
            classifier has `label`, (N,), with its own classes, and `probabilities`, (N, C), or
            `scores` with loss="hinge".
            For multilabel targets `label` is (N, K) zeros and ones. A model of a table has an
            input for each of its columns, (N, 1) floats or texts; NaN and "" are missing cells. It
            must have no dates.
        path: the file, which is replaced as a whole; None to write nothing.
        classes: the names of the classes. The graph then has two outputs: `label`, (N,) names, and
            `probabilities`, (N, C). Several outputs of the model become probabilities by a softmax,
            unless the model ends in one. A single output belongs to the second of two classes and
            becomes a probability by a sigmoid, unless the model ends in one. With None, the graph
            has one output, `output`, with the values of `model.predict`.
        opset: the version of ONNX's operators, at least 17.
        float16: whether to compute in float16.
        batch: the name of the first axis, which then may have any length; or a fixed length.

    Returns:
        The ONNX model, checked by `onnx.checker`.

    Raises:
        MissingExtraError: onnx is not installed.
        ArgumentError: ONNX has no operators for a module or function of yours, float16 does not
            hold a number, or an argument is outside its range. In this case nothing is written.
        ShapeError: the layers do not fit each other.
        OutputError: the file cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "export to ONNX") from error

    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int) or not FIRST_OPSET <= opset <= newest:
        raise ArgumentError(
            f"got opset={opset!r}; expected {FIRST_OPSET} to {newest}, which the installed onnx "
            "knows: choose one of them"
        )
    if not (isinstance(batch, str) and batch) and (type(batch) is not int or batch < 1):
        raise ArgumentError(
            f'got batch={batch!r}; expected a name or a length of at least 1: pass e.g. "N"'
        )
    narrow = float16 or getattr(model, "dtype", None) == np.float16
    draft = Draft(np.float16 if narrow else np.float32)
    outputs = {}
    for name, answer in _answers(draft, model, classes).items():
        columns = [] if answer.width is None else [answer.width]
        outputs[name] = answer.dtype, [batch, *columns]
        draft.rename(answer.value, name)
    proto = _proto(draft, outputs, opset, batch)
    if path is not None:
        write_atomically(Path(path), proto.SerializeToString())
    return proto


def _answers(draft: Draft, model: Any, classes: Sequence[str] | None) -> dict[str, Answer]:
    """Add a module or an estimator to the draft, and return the outputs by their names."""
    if isinstance(model, Module):
        y = whole(draft, model, INPUT)
        if classes is not None:
            return _classified(draft, y, _names(classes))
        return {"output": Answer(y, draft.dtype, draft.width_of(y) or "K")}
    if not hasattr(model, "draft_onnx"):
        raise ArgumentError(
            f"got a {type(model).__name__} to export; expected a module, or an estimator of "
            "gpunn.sklearn: pass the model (skl2onnx converts pipelines)"
        )
    if classes is not None:
        raise ArgumentError(
            "got classes with an estimator; expected none, because it has its own: leave them out"
        )
    found: dict[str, Answer] = model.draft_onnx(draft)
    return found


def _names(classes: Sequence[str]) -> np.ndarray[Any, Any]:
    names = [classes] if isinstance(classes, str) else list(classes)
    texts = all(isinstance(name, str) for name in names)
    if not texts or len(names) < 2 or len(set(names)) < len(names):
        raise ArgumentError(
            f"got classes={classes!r}; expected two or more different strings: pass their names"
        )
    return np.array(names, dtype=object)


def _classified(draft: Draft, y: Value, names: np.ndarray[Any, Any]) -> dict[str, Answer]:
    """Add the label and the probabilities of a model's outputs to the graph."""
    outputs = draft.width_of(y)
    if outputs == UNKNOWN or len(names) != max(outputs, 2):
        raise ArgumentError(
            f"got {len(names)} classes for {outputs or 'an unknown number of'} outputs; expected a "
            "name for each output, or two names for a single output: pass as many names"
        )
    if outputs > 1:
        number = largest_of(draft, y)
        done = draft.producer(y) == "Softmax"
        probabilities = y if done else draft.apply("Softmax", y, place="probabilities", axis=-1)
    else:
        number, probabilities = of_two(draft, y)
    known = draft.constant(names, "classes")
    label = draft.apply("Gather", known, number, place="label", axis=0)
    return {
        "label": Answer(label, names.dtype, None),
        "probabilities": Answer(probabilities, draft.dtype, len(names)),
    }


def _proto(
    draft: Draft, outputs: dict[str, tuple[Any, list[Any]]], opset: int, batch: str | int
) -> ModelProto:
    """Convert the draft to an ONNX model and check it."""
    from onnx import checker, helper, numpy_helper

    size_bytes = sum(constant.nbytes for constant in draft.constants.values())
    if size_bytes > LARGEST_BYTES:
        raise ArgumentError(
            f"got a model of {size_bytes / 2**30:.1f} GiB; expected less than 2 GiB, the most "
            "that an ONNX file holds: export with float16, or a smaller model"
        )

    def described(name: str, dtype: Any, shape: list[Any]) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    only: list[tuple[str, Any, Any]] = [(INPUT, draft.dtype, draft.input_width or "D")]
    inputs = draft.inputs or only
    graph = helper.make_graph(
        [
            helper.make_node(o.kind, o.inputs, [o.output], o.output, **o.attributes)
            for o in draft.operators
        ],
        "gpunn",
        [described(name, dtype, [batch, width]) for name, dtype, width in inputs],
        [described(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in draft.constants.items()],
    )
    domains = {o.attributes["domain"] for o in draft.operators if "domain" in o.attributes}
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, ML_OPSET) for domain in sorted(domains)]
    proto = helper.make_model(
        graph,
        producer_name="gpunn",
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
    )
    checker.check_model(proto, full_check=True)
    return proto
