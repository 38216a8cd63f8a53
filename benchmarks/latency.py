"""Time one prediction at a time, as a service makes them, beside other libraries.

    env -u OPENBLAS_CORETYPE OMP_NUM_THREADS=1 python -m benchmarks.latency --out latency.json

All contenders take turns in blocks of 100 calls, in a random order, in one run.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.machine import machine, versions
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.timing import Work, seconds

SHAPES = ((20, 100, 100, 3), (784, 256, 256, 10))
ROWS = (1, 2, 8, 32, 256)
CALLS = 100  # in a block
THREADS, EACH = 4, 500  # of the concurrent measurement


def network(shape: tuple[int, ...]) -> gn.nn.Sequential:
    """Return a network of linear layers with ReLU."""
    pairs = list(pairwise(shape))
    hidden = [gn.nn.Linear(d, h, "relu", seed=k) for k, (d, h) in enumerate(pairs[:-1])]
    return gn.nn.Sequential(*hidden, gn.nn.Linear(*pairs[-1], seed=len(hidden)))


def networks(shape: tuple[int, ...], x: np.ndarray[Any, Any]) -> dict[str, Work]:
    """Return the outputs of one network for a batch, computed by each library."""
    net = network(shape)
    works: dict[str, Work] = {"gpunn predict": lambda: net.predict(x)}
    arrays = [parameter.data for parameter in net.parameters()]
    layers = list(zip(arrays[::2], arrays[1::2], strict=True))

    def products() -> Any:
        y = x
        for w, b in layers[:-1]:
            y = np.maximum(y @ w + b, 0)
        return y @ layers[-1][0] + layers[-1][1]

    works["NumPy"] = products
    if find_spec("onnxruntime") and find_spec("onnx"):
        works["onnxruntime"] = _onnxruntime(net, x)
    if find_spec("torch"):
        works["PyTorch"] = _torch(arrays, x)
    return works


def _onnxruntime(net: gn.nn.Sequential, x: np.ndarray[Any, Any]) -> Work:
    onnxruntime = import_module("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = gn.interop.to_onnx(net).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    name, out = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda: session.run(out, {name: x})


def _torch(arrays: list[np.ndarray[Any, Any]], x: np.ndarray[Any, Any]) -> Work:
    torch = import_module("torch")

    torch.set_num_threads(1)
    modules: list[Any] = []
    for w, b in zip(arrays[::2], arrays[1::2], strict=True):
        layer = torch.nn.Linear(*w.shape)
        layer.weight.data, layer.bias.data = torch.tensor(w.T.copy()), torch.tensor(b)
        modules += [layer, torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1]).eval()

    def predict() -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    return predict


def estimators(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """Return fitted estimators of gpunn and of scikit-learn, and one of gpunn that was loaded."""
    from sklearn.neural_network import MLPClassifier

    from gpunn.sklearn import MLPClassifier as Ours

    rng = np.random.default_rng(0)
    x, y = rng.random((300, shape[0])).astype(dtype), np.arange(300) % shape[-1]
    options: dict[str, Any] = {
        "hidden_layer_sizes": shape[1:-1], "max_iter": 2, "random_state": 0
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = Ours(**options).fit(x, y)
        theirs = MLPClassifier(**options).fit(x, y)
    return {
        "gpunn": ours,
        "gpunn, loaded": pickle.loads(pickle.dumps(ours)),
        "scikit-learn": theirs,
    }


def shuffled(works: dict[str, Work], blocks: int) -> dict[str, float]:
    """Return the median microseconds of a call of each piece of work, in blocks in random order."""
    for work in works.values():
        for _ in range(5):
            work()
    turns = [name for name in works for _ in range(blocks)]
    random.Random(0).shuffle(turns)
    times: dict[str, list[float]] = {name: [] for name in works}
    for name in turns:
        works[name]()
        times[name].append(1e6 * seconds(works[name], CALLS))
    return {name: statistics.median(values) for name, values in times.items()}


def at_once(predict: Callable[[Any], Any], x: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the microseconds of a call of one thread, and of several at the same time."""

    def calls(number: int) -> None:
        for _ in range(EACH):
            predict(x)

    found = {}
    for threads in (1, THREADS):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(calls, range(threads)))
            start = time.perf_counter()
            list(pool.map(calls, range(threads)))
            found[f"{threads} threads"] = 1e6 * (time.perf_counter() - start) / (threads * EACH)
    return found


def main() -> None:
    """Measure and print all shapes and batches."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--blocks", type=int, default=21, help="of 100 calls of each contender")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(Settings()), "versions": versions()}
    for shape in SHAPES:
        x = np.random.default_rng(1).random((max(ROWS), shape[0]))
        for rows in ROWS:
            row: dict[str, Any] = shuffled(
                networks(shape, x[:rows].astype(np.float32)), asked.blocks
            )
            for dtype in ("float32", "float64") if find_spec("sklearn") else ():
                batch, works = x[:rows].astype(dtype), dict[str, Work]()
                for name, one in estimators(shape, dtype).items():
                    for method in ("predict", "predict_proba"):
                        call = getattr(one, method)
                        works[f"{name}, {method}, {dtype}"] = lambda call=call, b=batch: call(b)
                row |= shuffled(works, asked.blocks)
            print(shape, rows, json.dumps(row), flush=True)
            found[f"{'-'.join(map(str, shape))}, {rows} rows"] = row
        net, batch = network(shape), x[:32].astype(np.float32)
        found[f"{'-'.join(map(str, shape))}, at once"] = both = at_once(net.predict, batch)
        print(shape, "32 rows", both, flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
