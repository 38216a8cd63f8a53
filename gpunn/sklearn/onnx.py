"""Export of fitted estimators to ONNX, alone or as a step of a pipeline that skl2onnx converts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from gpunn import ops
from gpunn.backends import backend
from gpunn.errors import ArgumentError
from gpunn.interop.onnx_answers import Answer, largest_of, of_two
from gpunn.interop.onnx_draft import INPUT, Draft, Value
from gpunn.interop.onnx_layers import whole
from gpunn.nn import Module, Sequential
from gpunn.sklearn import translation
from gpunn.sklearn.network import Network

LAST: dict[str, str | Callable[..., Any]] = {
    "softmax": "softmax",
    "logistic": "sigmoid",
    "exp": ops.exp,
}


class OnnxExport:
    """A mixin that describes a fitted estimator to ONNX's converters.

    `gpunn.interop.to_onnx` calls `draft_onnx`. skl2onnx finds the other two methods by their names,
    so that it converts these estimators, and pipelines with them, without a registration.
    """

    coefs_: Any
    intercepts_: Any
    out_activation_: str

    def to_module(self) -> Module:
        """Return the fitted network as a module of gpunn, on the CPU, with copies of the weights.

        It ends in the output activation: its outputs are probabilities for a classifier, unless the
        loss is "hinge", and predictions for a regressor.
        """
        check_is_fitted(self)
        names = translation.hidden_activations(self)
        dtype = self.coefs_[0].dtype
        coefs, intercepts = ([a.copy() for a in each] for each in (self.coefs_, self.intercepts_))
        layers = Network(backend("cpu"), dtype, coefs, intercepts, names).layers
        last = LAST.get(self.out_activation_)
        return Sequential(*layers) if last is None else Sequential(*layers, last)

    def draft_onnx(self, draft: Draft) -> dict[str, Answer]:
        """Add the estimator to a draft whose input is `gpunn.interop.onnx_draft.INPUT`.

        Returns:
            For a regressor, "output". For a classifier, "label" with its classes, and
            "probabilities" or, with the loss "hinge", "scores".
        """
        return self._answers(draft, whole(draft, self.to_module(), INPUT))

    def onnx_shape_calculator(self) -> Callable[..., None]:
        """Return the function with which skl2onnx declares the types of the outputs."""
        return _declare

    def onnx_converter(self) -> Callable[..., None]:
        """Return the function with which skl2onnx adds the estimator to a graph.

        It also tells skl2onnx that the option zipmap=False, the only way here, is known.
        """
        from skl2onnx import update_registered_converter

        kind, options = type(self), {"zipmap": [False]}
        name = f"Gpunn{kind.__name__}"
        update_registered_converter(kind, name, _declare, _add, parser=_parse, options=options)
        return _add

    def _answers(self, draft: Draft, y: Value) -> dict[str, Answer]:
        found: Any = self
        if not is_classifier(self):
            return {"output": Answer(y, draft.dtype, found.n_outputs_)}
        names = _labels(found.classes_)
        hinge = translation.has_scores(found)
        if translation.one_of_many(self):
            number = largest_of(draft, y)
            scores = Answer(y, draft.dtype, len(names))
        elif found._label_binarizer.y_type_ == "multilabel-indicator":
            middle = draft.floats(0.0 if hinge else 0.5, "middle")
            above = draft.apply("Greater", y, middle, place="label")
            one, zero = (draft.constant(np.int64(n), f"class_{n}") for n in (1, 0))
            label = draft.apply("Where", above, one, zero, place="label")
            scores = Answer(y, draft.dtype, len(names))
            return {"label": Answer(label, np.int64, len(names)), _kind(hinge): scores}
        else:
            number, both = of_two(draft, y)
            scores = Answer(y, draft.dtype, 1) if hinge else Answer(both, draft.dtype, 2)
        known = draft.constant(names, "classes")
        label = draft.apply("Gather", known, number, place="label", axis=0)
        return {"label": Answer(label, names.dtype, None), _kind(hinge): scores}


def _kind(hinge: bool) -> str:
    return "scores" if hinge else "probabilities"


def _labels(classes: np.ndarray) -> np.ndarray:
    """Return the classes as int64 or as text. Classes that are floats are whole numbers."""
    if classes.dtype.kind in "iubf":
        return classes.astype(np.int64)
    return classes.astype(str).astype(object)


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Declare the operator and its outputs to skl2onnx. It calls this after the first export."""
    from skl2onnx.common.data_types import Int64TensorType, guess_tensor_type

    operator = scope.declare_local_operator(f"Gpunn{type(model).__name__}", model)
    operator.inputs = inputs
    numbers = guess_tensor_type(inputs[0].type)
    outputs = {"variable": numbers}
    if is_classifier(model):
        outputs = {"label": Int64TensorType(), "probabilities": numbers}
    for name, kind in outputs.items():
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _declare(operator: Any) -> None:
    """Declare the types of the outputs to skl2onnx: its convention is (N, K), and (N,) labels."""
    from skl2onnx.common.data_types import (
        Int64TensorType,
        StringTensorType,
        guess_tensor_type,
    )

    found, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    numbers = type(guess_tensor_type(operator.inputs[0].type))
    if not is_classifier(found):
        operator.outputs[0].type = numbers([rows, found.n_outputs_])
        return
    if translation.has_scores(found):
        raise ArgumentError(
            'got loss="hinge", whose scores are not the probabilities that skl2onnx wants; '
            "expected log_loss: export the estimator alone, with gpunn.interop.to_onnx"
        )
    names = _labels(found.classes_)
    several = found._label_binarizer.y_type_ == "multilabel-indicator"
    label = Int64TensorType if several or names.dtype == np.int64 else StringTensorType
    operator.outputs[0].type = label([rows, len(names)] if several else [rows])
    operator.outputs[1].type = numbers([rows, len(names)])


def _add(scope: Any, operator: Any, container: Any) -> None:
    """Add the operators of a draft to the graph of skl2onnx.

    The network computes in float32 between two casts: runtimes lack some operators of float64.
    """
    from onnx import helper
    from skl2onnx.common.data_types import guess_proto_type, guess_tensor_type

    draft = Draft(np.float32)
    answers = operator.raw_operator.draft_onnx(draft)
    names = {INPUT: scope.get_unique_variable_name("floats")}

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = scope.get_unique_operator_name(kind)
        container.add_node(kind, inputs, output, name=name, **attributes)

    def cast(given: str, output: str, to: int) -> None:
        add("Cast", [given], output, to=to)

    for name, array in draft.constants.items():
        names[name] = scope.get_unique_variable_name(name)
        text = array.dtype == object
        content = [t.encode() for t in array.ravel()] if text else array.ravel().tolist()
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        container.add_initializer(names[name], dtype, array.shape, content)
    for o in draft.operators:
        names[o.output] = scope.get_unique_variable_name(o.output)
    cast(operator.inputs[0].full_name, names[INPUT], helper.np_dtype_to_tensor_dtype(draft.dtype))
    for o in draft.operators:
        add(o.kind, [names[i] for i in o.inputs], names[o.output], **o.attributes)
    for answer, output in zip(answers.values(), operator.outputs, strict=True):
        if answer.dtype == draft.dtype:
            to = guess_proto_type(guess_tensor_type(output.type))
            cast(names[answer.value.name], output.full_name, to)
        else:
            add("Identity", [names[answer.value.name]], output.full_name)
