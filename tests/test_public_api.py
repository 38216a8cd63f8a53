"""What users see: names, docstrings, doctests."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import gpunn

pytestmark = pytest.mark.fast

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(gpunn.__path__, "gpunn.") if "__main__" not in m.name
)


@pytest.mark.parametrize("name", ["gpunn", *MODULES])
def test_doctests(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


@pytest.mark.parametrize("name", ["gpunn", *MODULES])
def test_all_is_complete_and_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isclass(value) or callable(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_every_public_class_documents_its_methods():
    for name in MODULES:
        for _, cls in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if not cls.__module__.startswith("gpunn"):
                continue
            for method, function in vars(cls).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(cls, method)), f"{cls.__name__}.{method}"
