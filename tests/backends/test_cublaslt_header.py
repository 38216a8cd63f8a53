"""The constants, structures and prototypes of `cublaslt` against NVIDIA's header, compiled by g++.

The header comes with CUDA's toolkit and with the wheel nvidia-cublas; GPUNN_CUDA_INCLUDE names
further folders, as a path list.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from enum import IntEnum
from pathlib import Path

import pytest

from gpunn.backends.cuda import cublaslt, cublaslt_request
from tests.standin import cublaslt as standin

PREFIXES = {
    "Status": "CUBLAS_STATUS_",
    "DataType": "CUDA_",
    "Compute": "CUBLAS_",
    "Operation": "CUBLAS_",
    "Epilogue": "CUBLASLT_EPILOGUE_",
    "ReductionScheme": "CUBLASLT_REDUCTION_SCHEME_",
    "Attribute": "CUBLASLT_MATMUL_DESC_",
    "Preference": "CUBLASLT_MATMUL_PREF_",
}
STRUCTURES = {
    "cublasLtMatmulAlgo_t": cublaslt.MatmulAlgo,
    "cublasLtMatmulHeuristicResult_t": cublaslt.HeuristicResult,
}
MAIN = """
#include <cstddef>
#include <cstdio>
#include <cublasLt.h>

template <class F> struct Function;
template <class R, class... A> struct Function<R(A...)> {
    static void print(const char* name) {
        std::printf("%s", name);
        for (std::size_t size : {sizeof(R), sizeof(A)...}) std::printf(" %zu", size);
        std::printf("\\n");
    }
};

int main() {
"""


def include_folders():
    named = os.environ.get("GPUNN_CUDA_INCLUDE", "").split(os.pathsep)
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/include")
    folders = [*map(Path, filter(None, named)), *(Path(h, "include") for h in homes if h), *wheels]
    return [folder for folder in folders if folder.is_dir()]


def constants():
    found = {
        member
        for module in (cublaslt, cublaslt_request)
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, IntEnum) and member is not IntEnum
    }
    return {PREFIXES[kind.__name__] + one.name: one.value for kind in found for one in kind}


def expected():
    """What the program should print: a name, then numbers."""
    sizes = {name: [ctypes.sizeof(kind)] for name, kind in STRUCTURES.items()}
    offsets = {
        f"{name}.{field[0]}": [getattr(kind, field[0]).offset, getattr(kind, field[0]).size]
        for name, kind in STRUCTURES.items()
        for field in kind._fields_
    }
    functions = {
        name: [ctypes.sizeof(kind) for kind in (ctypes.c_int, *types)]
        for name, types in cublaslt.SIGNATURES.items()
    }
    return {name: [value] for name, value in constants().items()} | sizes | offsets | functions


def program():
    lines = [f'std::printf("{name} %lld\\n", (long long){name});' for name in constants()]
    for name, kind in STRUCTURES.items():
        lines.append(f'std::printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in kind._fields_:
            where = f"offsetof({name}, {field}), sizeof((({name}*)0)->{field})"
            lines.append(f'std::printf("{name}.{field} %zu %zu\\n", {where});')
    lines += [f'Function<decltype({name})>::print("{name}");' for name in cublaslt.SIGNATURES]
    return MAIN + "\n".join(lines) + "\n}\n"


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folders, compiler = include_folders(), shutil.which("g++")
    if not any((folder / "cublasLt.h").exists() for folder in folders):
        pytest.skip("no cublasLt.h: set GPUNN_CUDA_INCLUDE or CUDA_HOME")
    if not any((folder / "cuda_runtime_api.h").exists() for folder in folders):
        pytest.skip("no cuda_runtime_api.h, which cublasLt.h includes: set GPUNN_CUDA_INCLUDE")
    if compiler is None:
        pytest.skip("g++ is not installed")
    source = tmp_path_factory.mktemp("header") / "header.cpp"
    source.write_text(program())
    binary = source.with_suffix("")
    includes = [f"-I{folder}" for folder in folders]
    subprocess.run([compiler, "-std=c++17", *includes, source, "-o", binary], check=True)
    lines = subprocess.run([binary], check=True, capture_output=True, text=True).stdout.split("\n")
    return {
        name: [int(n) for n in numbers] for name, *numbers in map(str.split, filter(None, lines))
    }


def test_the_header_agrees(printed):
    assert printed == expected()


def test_the_stand_in_has_the_same_prototypes():
    found = {f"cublasLt{name}": types for name, types in standin.PROTOTYPES.items()}
    assert found == cublaslt.SIGNATURES
    assert ctypes.sizeof(standin.HeuristicResult) == ctypes.sizeof(cublaslt.HeuristicResult)
