"""The house: who may import whom, and the package list against the tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"beside"},
    {"errors", "fingerprint", "html", "log", "moved", "progress_bar", "typing"},
    {"guesses"},
    {"arguments", "names"},
    {"frames", "sparse", "storage"},
    {"backends", "columns"},
    {"autograd"},
    {"ops", "examples"},
    {"nn", "optim", "data"},
    {"distributed", "explain"},
    {"plot"},
    {"train"},
    {"interop", "playground"},
    {"tables"},
    {"sklearn"},
    {"accel"},
    {"benchmarks"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SINGLE_IMPORTERS = {
    "cupy": {"backends/cuda/backend.py", "backends/cuda/cublaslt.py"},
    "ctypes": {
        "backends/cuda/backend.py",
        "backends/cpu/blas.py",
        "backends/cuda/cublaslt.py",
        "backends/cuda/cublaslt_request.py",
        "backends/cpu/compiled/compiler.py",
    },
    "scipy": {
        "gpunn/data/images.py",
        "gpunn/ops/gelu.py",
        "gpunn/ops/losses.py",
        "gpunn/sklearn/arithmetic.py",
        "gpunn/sklearn/losses.py",
        "gpunn/train/lbfgs.py",
        "benchmarks/papers/report.py",
    },
    "matplotlib": {"gpunn/plot/picture.py", "benchmarks/picture.py"},
    "tqdm": {"gpunn/progress_bar.py"},
    "safetensors": set(),
    "onnx": {"gpunn/interop/onnx.py", "gpunn/interop/onnx_source.py", "gpunn/sklearn/onnx.py"},
    "skl2onnx": {"gpunn/sklearn/onnx.py"},
    "pooch": {"gpunn/data/mnist.py"},
    "pyarrow": {"gpunn/data/columnfile.py", "gpunn/data/parts.py"},
    "openpyxl": {"gpunn/data/columnfile.py"},
    "sklearn": {
        "gpunn/accel/moments.py",
        "gpunn/accel/reasons.py",
        "gpunn/accel/running.py",
        "gpunn/train/metric.py",
        "benchmarks/contenders/sklearn_step.py",
        "benchmarks/fit.py",
        "benchmarks/latency.py",
        "benchmarks/papers/run.py",
        "benchmarks/sklearn_fit.py",
        "benchmarks/tables/__main__.py",
        "benchmarks/tables/contenders.py",
        "benchmarks/tables/sets.py",
    }
    | {
        f"gpunn/sklearn/{name}.py"
        for name in (
            *("__init__", "translation", "classifier", "constraints", "convergence", "perceptron"),
            *("prediction", "onnx", "tables"),
            *("device_input", "conversion", "compat", "regressor"),
        )
    },
    "pandas": {"gpunn/train/curves.py"},
    "polars": set(),
    "torch": {
        "benchmarks/contenders/torch_step.py",
        "benchmarks/members.py",
        "benchmarks/gpu/nodes.py",
        "benchmarks/engine.py",
        "benchmarks/fit.py",
    },
    "jax": {"benchmarks/contenders/jax_step.py"},
}


LINKED = ("backends", "benchmarks")  # folders that stand beside the package they belong to


def sources():
    files = [f for name in ("gpunn", *LINKED) for f in (ROOT / name).rglob("*.py")]
    links = {ROOT / "gpunn" / name for name in LINKED}
    return sorted(f for f in files if links.isdisjoint(f.parents))


@cache
def parsed(path):
    """The syntax tree of a file, which several tests look at."""
    return ast.parse(path.read_text())


def part_of(path):
    relative = path.relative_to(ROOT)
    if relative.parts[0] in LINKED:
        return relative.parts[0]
    return relative.parts[1].removesuffix(".py")


def module_of(path):
    """The name under which a file is imported."""
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts if relative.parts[0] == "gpunn" else ("gpunn", *relative.parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows():
    """Each module with the modules that it imports: anywhere in the file, for whatever purpose."""
    paths = {module_of(path): path for path in sources()}
    found = {}
    for module, path in paths.items():
        names = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute"
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                names.update(name if name in paths else node.module for name in full)
        found[module] = names & paths.keys() - {module}
    return found


def circles(arrows):
    """The groups of modules that reach each other."""

    def reached(start):
        seen, ahead = set(), [start]
        while ahead:
            for name in arrows[ahead.pop()] - seen:
                seen.add(name)
                ahead.append(name)
        return seen

    reach = {module: reached(module) for module in arrows}
    rings = [
        frozenset(other for other in reach[module] if module in reach[other])
        for module in arrows
        if module in reach[module]
    ]
    return set(rings)


def test_circles_are_seen():
    drawn = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f"}, "f": {"e", "a"}}
    assert circles(drawn) == {frozenset("bc"), frozenset("ef")}


def test_no_import_circles():
    assert [sorted(ring) for ring in circles(arrows())] == []


MAX_PUBLIC_METHODS = 25
MAX_CLASS_LINES = 300


def classes():
    for path in sources():
        if part_of(path) != "benchmarks":
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.ClassDef):
                    yield f"{path.relative_to(ROOT).as_posix()}:{node.name}", node


def test_classes_stay_small():
    for name, node in classes():
        methods = {
            inner.name
            for inner in node.body
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
        }
        assert len(methods) <= MAX_PUBLIC_METHODS, (name, sorted(methods))
        lines = node.end_lineno - node.lineno + 1
        assert lines <= MAX_CLASS_LINES, (name, lines)


def test_train_has_few_files():
    files = sorted(path.name for path in (ROOT / "gpunn" / "train").glob("*.py"))
    assert len(files) <= 14, files


@cache
def imports(path):
    """Every module that a file imports, with whether only a type checker sees it."""
    tree, found = parsed(path), []
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "gpunn":
                names = [f"gpunn.{alias.name}" for alias in node.names]
        found += [(name, id(node) in checking) for name in names]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    for name, checking in imports(path):
        words = name.split(".")
        assert words[0] not in LINKED, f"import it as gpunn.{words[0]}"
        if words[0] != "gpunn" or checking:
            continue
        if len(words) == 1 or words[1] not in RANK:
            assert part in ("cli", "benchmarks"), f"{name}: only who uses it imports it whole"
            continue
        same = words[1] == part
        assert same or RANK[words[1]] < RANK[part], f"{part} imports {words[1]}, which is above it"


@pytest.mark.parametrize("package", SINGLE_IMPORTERS)
def test_single_importers(package):
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        for name, _ in imports(path)
        if name.split(".")[0] == package
    }
    assert found <= SINGLE_IMPORTERS[package]


def test_the_package_list_is_the_tree():
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and newer")
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sources()
        if path.name == "__init__.py"
    }
    found = {f"gpunn.{name}" if name.startswith(LINKED) else name for name in found}
    assert set(setup["packages"]) == found


def test_every_cuda_file_is_packaged_and_small():
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and newer")
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folder = ROOT / "gpunn" / "ops"
    packaged = {
        path for pattern in setup["package-data"]["gpunn.ops"] for path in folder.glob(pattern)
    }
    assert packaged == set((folder / "cuda").iterdir())
    for path in packaged:
        lines = path.read_text().split("\n")
        assert len(lines) < 400
        assert max(map(len, lines)) <= 100, path


@pytest.mark.parametrize("name", LINKED)
def test_one_folder_under_two_names(name):
    link = ROOT / "gpunn" / name
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout has the link; an archive of the sources does not")
    assert link.is_symlink()
    assert link.resolve() == ROOT / name


def test_import_pulls_in_nothing_heavy():
    code = (
        "import sys, gpunn; "
        "print([m for m in ('cupy', 'sklearn', 'scipy', 'matplotlib', 'tqdm', 'pooch', 'typer', "
        "'safetensors', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_session_on_the_cpu_imports_no_cuda_backend():
    code = (
        "import sys, numpy as np, gpunn as gn; "
        "net = gn.nn.Linear(4, 2); "
        "x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32); "
        "gn.Trainer(net, loss='squared_error').fit(x, x[:, :2], epochs=2, progress=False); "
        "net.predict(x.view(type('Mine', (np.ndarray,), {}))); "
        "gn.tensor([[1.0, 2.0]]); "
        "print([m for m in sys.modules if m == 'gpunn.backends.cuda.backend'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef):
            code = node.body[1:] if ast.get_docstring(node) else node.body
            lines = code[-1].end_lineno - code[0].lineno + 1 if code else 0
            assert lines <= 60, f"{node.name} has {lines} lines"
