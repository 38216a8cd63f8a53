"""The outputs of onnxruntime, and graphs of ONNX's operators."""

from __future__ import annotations

import numpy as np
import pytest

from tests.netcases import BATCHES, D

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx import helper, numpy_helper  # noqa: E402


def outputs(proto, x):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def assert_agrees(net, proto, tolerance, width=D, least=0.0):
    """To a tolerance relative to the largest output of all batches, or to `least` if it is larger.

    The output of a single row may be what is left of numbers that cancel.
    """
    rng = np.random.default_rng(2)
    kind = {1: np.float32, 10: np.float16}[proto.graph.input[0].type.tensor_type.elem_type]
    errors, largest = [], [least]
    for n in BATCHES:
        x = (2 * rng.standard_normal((n, width))).astype(kind)
        expected = net.predict(x).astype(np.float64)
        found = outputs(proto, x)
        assert list(found) == ["output"]
        assert found["output"].dtype == kind
        assert found["output"].shape == expected.shape
        errors.append(np.abs(found["output"] - expected).max())
        largest.append(np.abs(expected).max())
    assert max(errors) <= tolerance * max(largest)


def graph(nodes, constants, shape=("N", D), opset=17, kind=np.float32, outs=("y",), domains=()):
    """A model of operators (kind, inputs, outputs, attributes) with the input x."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(*each[:3], **(each[3] if len(each) > 3 else {})) for each in nodes],
            "theirs",
            [helper.make_tensor_value_info("x", number, shape)],
            [helper.make_tensor_value_info(name, number, None) for name in outs],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)]
        + [helper.make_opsetid(domain, 1) for domain in domains],
        ir_version=8,
    )
