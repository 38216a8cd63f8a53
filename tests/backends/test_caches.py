"""Every cache is bounded: the source is searched, and a service of all shapes stays flat."""

from __future__ import annotations

import ast
import gc
from collections import deque
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.backends.bounded import Bounded

ROOT = Path(__file__).parents[2]
FOLDERS = ("gpunn", "backends")
BOUNDED_BY_NATURE = {
    "backends/cpu/pool.py": {
        "_idle": "sizes of buffers, 8 for each power of two; the buffers are trimmed",
        "_loans": "buffers in use; forgotten after two windows",
        "_memories": "the memory of one recording",
    },
    "backends/cuda/launcher.py": {"_workspace": "three names"},
    "backends/kernel.py": {"KERNELS": "declared kernels"},
    "backends/memory.py": {"_constants": "MOST_CONSTANTS", "_ones": "float dtypes"},
    "backends/registry.py": {"_instances": "devices"},
    "gpunn/accel/report.py": {"_told": "classes and reasons"},
    "gpunn/accel/running.py": {"_kept": "living estimators", "training": "of one fit"},
    "gpunn/accel/switch.py": {"_replaced": "three methods"},
    "gpunn/autograd/op.py": {"OPS": "declared operations"},
    "gpunn/autograd/tensor.py": {"METHODS": "declared operations"},
    "gpunn/data/parts.py": {"_decoded": "GROUPS"},
    "gpunn/data/rowfeed.py": {"_windows": "two for each stream", "_made": "AHEAD"},
    "gpunn/distributed/tree.py": {"nodes": "nodes of one tree"},
    "gpunn/fingerprint/identity.py": {"settings": "settings of one run"},
    "gpunn/fingerprint/walk.py": {"values": "at most MOST", "_seen": "ends with the walk"},
    "gpunn/interop/onnx_draft.py": {"constants": "of one file", "_shared": "of one file"},
    "gpunn/interop/onnx_network.py": {"_built": "of one file", "_takers": "of one file"},
    "gpunn/interop/onnx_source.py": dict.fromkeys(("_alias", "nodes", "_turned"), "of one file"),
    "gpunn/interop/source/program.py": dict.fromkeys(
        ("chances", "linear", "functions", "_shared", "constants"), "of one model"
    ),
    "gpunn/interop/source/writing.py": {"used": "of one function"},
    "gpunn/interop/pytorch_modules.py": {"_parts": "of one network"},
    "gpunn/names.py": {"_HOMES": "declared names"},
    "gpunn/nn/module.py": {"MODULES": "declared classes"},
    "gpunn/ops/elementwise.py": {"ACTIVATIONS": "declared activations"},
    "gpunn/ops/elementwise_losses.py": {"LOSSES": "declared losses"},
    "gpunn/optim/flat.py": dict.fromkeys(("views", "parts", "_narrow_views"), "parameters"),
    "gpunn/optim/optimizer.py": {"OPTIMIZERS": "declared classes"},
    "gpunn/optim/rule.py": {"RULES": "declared rules"},
    "gpunn/train/callbacks/best.py": {"_weights": "parameters"},
    "gpunn/train/steps/by_hand.py": {"_shapes": "MAX_SHAPES"},
    "gpunn/train/steps/sharded.py": {"_spares": "lanes"},
    "gpunn/train/training.py": {"beginning": "settings of one run"},
}
"""Every dict of the library that starts empty and outlives a call, with what limits it."""

EMPTY = (ast.Dict, ast.Set, ast.Call)


def trees():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.is_relative_to(ROOT / "gpunn" / "backends"):
                name = path.relative_to(ROOT).as_posix()
                if not name.startswith(("gpunn/backends/", "gpunn/benchmarks/")):
                    yield name, ast.parse(path.read_text(encoding="utf-8"))


def called(node):
    """The last name of what is called or named: `cache` of `functools.cache`."""
    node = node.func if isinstance(node, ast.Call) else node
    return getattr(node, "attr", getattr(node, "id", ""))


def is_empty_container(node):
    if isinstance(node, ast.Dict):
        return not node.keys
    kinds = ("dict", "set", "defaultdict", "OrderedDict", "Counter", "WeakValueDictionary")
    return isinstance(node, ast.Call) and called(node) in kinds and not node.args


def lasting(tree):
    """Names of dicts and sets that start empty as an attribute or at the top of a module."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not is_empty_container(node.value):
            continue
        for target in targets:
            if isinstance(target, ast.Attribute):
                yield target.attr
            elif isinstance(target, ast.Name) and id(node) in top:
                yield target.id


def unbounded_caches(tree):
    """Functions with arguments under `cache`, and `lru_cache` without a number."""
    decorators = {
        id(one): node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for one in node.decorator_list
    }
    for node in ast.walk(tree):
        if called(node) == "cache" and isinstance(node, ast.Name | ast.Attribute | ast.Call):
            function = decorators.get(id(node))
            if function is not None and (function.args.args or function.args.vararg):
                yield function.name
            elif function is None and isinstance(node, ast.Call):
                yield f"line {node.lineno}"
        elif isinstance(node, ast.Call) and called(node) == "lru_cache":
            sizes = [k.value for k in node.keywords if k.arg == "maxsize"] + node.args[:1]
            if not sizes or not isinstance(getattr(sizes[0], "value", None), int):
                yield f"line {node.lineno}"


def test_every_dict_that_lasts_is_listed_with_its_bound():
    found = {name: set(lasting(tree)) for name, tree in trees()}
    found = {name: dicts for name, dicts in found.items() if dicts}
    known = {name: set(dicts) for name, dicts in BOUNDED_BY_NATURE.items()}
    assert found == known, "use gpunn.backends.bounded.Bounded for what grows with the data"


def test_every_cached_function_has_a_size():
    assert {name: list(unbounded_caches(tree)) for name, tree in trees()} == {
        name: [] for name, _ in trees()
    }


@pytest.mark.parametrize(
    "text",
    [
        "@cache\ndef f(shape): ...",
        "@functools.lru_cache(maxsize=None)\ndef f(shape): ...",
        "f = cache(lambda shape: 1)",
        "f = lru_cache()(g)",
    ],
)
def test_an_unbounded_cache_is_seen(text):
    assert list(unbounded_caches(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["X = {}", "X: dict[int, int] = {}", "def f(self):\n    self.x: dict = {}", "X = set()"]
)
def test_a_dict_that_lasts_is_seen(text):
    assert list(lasting(ast.parse(text)))


def test_a_bounded_dict_drops_the_oldest():
    removed = []
    cache = Bounded(3, removed.append)
    for k in range(5):
        cache[k] = -k
    cache[3] = "again"
    assert dict(cache) == {2: -2, 3: "again", 4: -4}
    assert removed == [0, -1]


def sizes_of_containers():
    kinds = dict, list, set, deque
    return {id(one): (one, len(one)) for one in gc.get_objects() if isinstance(one, kinds)}


class Service:
    """Work with batches of sizes that never come again."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((4000, 12), dtype=np.float32)
        self.y = rng.integers(0, 3, 4000)
        self.net = nn.Sequential(
            nn.Linear(12, 16, "relu", seed=0),
            nn.BatchNorm(16),
            nn.Dropout(0.3, seed=1),
            nn.Linear(16, 16, "gelu", seed=2),
            nn.LayerNorm(16),
            nn.RMSNorm(16),
            nn.Linear(16, 3, seed=3),
        )
        eager = gn.train.EagerStep(
            self.net, gn.ops.softmax_cross_entropy, gn.optim.Adam(self.net.parameters())
        )
        self.steps = eager, gn.train.CapturedStep(eager)
        self.trainer = gn.Trainer(self.net, loss="softmax_cross_entropy")

    def use(self, n):
        x, y = self.x[:n], self.y[:n]
        self.net.predict(x)
        self.trainer.classify(x)
        self.trainer.evaluate(x, y)
        for step in self.steps:
            step(x, y)
        gn.ops.multiclass_hinge(self.net(x), y).backward()


@pytest.mark.both_bodies
def test_nothing_grows_with_the_number_of_shapes(bodies):
    service, sizes = Service(), iter(range(20, 4000))
    for _ in range(1100):  # the caches of 1,024 entries are full then
        service.use(next(sizes))
    gc.collect()
    before = sizes_of_containers()
    for _ in range(60):
        service.use(next(sizes))
    gc.collect()
    grown = [
        (len(now) - size, type(now).__name__, str(now)[:200])
        for now, size in before.values()
        if now is not before and len(now) > size + 20
    ]
    assert not grown
    assert all(len(one) <= one.limit for one in gc.get_objects() if isinstance(one, Bounded))
