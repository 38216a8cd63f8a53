"""The command `gpunn doctor`."""

from __future__ import annotations

import platform
from importlib import metadata

import typer

import gpunn
from gpunn.backends.cpu.blas import matrix_products
from gpunn.backends.cpu.compiled import find_compiler

PACKAGES = (
    "numpy",
    "scipy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cupy",
    "matplotlib",
    "pooch",
)


def run() -> None:
    """Print versions, the checks of the CPU and the GPU, and the remedy for a failed check."""
    typer.echo(f"gpunn {gpunn.__version__} on Python {platform.python_version()}, {_system()}")
    for package in PACKAGES:
        try:
            typer.echo(f"  {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    typer.echo("\nCPU\n  ok       NumPy runs every kernel")
    products = matrix_products()
    if products is not None:
        typer.echo(f"  {'ok' if products.ok else 'slow':8} {products.name}: {products.detail}")
        if products.remedy:
            typer.echo(f"{'':11}{products.remedy}")
    compiler = find_compiler()
    typer.echo(f"  {'ok' if compiler.command else 'without':8} compiled kernels: {compiler.why}")
    diagnosis = gpunn.diagnose("cuda")
    typer.echo("\nCUDA GPU")
    for rung in diagnosis.rungs:
        typer.echo(f"  {'ok' if rung.ok else 'FAILED':8} {rung.name}: {rung.detail}")
    for name in diagnosis.untried:
        typer.echo(f"  {'untried':8} {name}")
    if diagnosis.usable:
        typer.echo('\nThe GPU can be used: device="cuda", or "auto".')
    else:
        typer.echo(f"\nThe GPU cannot be used: {diagnosis.reason}.\n{diagnosis.remedy}.")
    choice, auto = gpunn.choose_device(), gpunn.choose_device("auto")
    typer.echo(f"In Python, arrays go to {choice.device} by default ({choice.why}).")
    typer.echo(f"gpunn train and gpunn predict take {auto.device} by default ({auto.why}).")


def _system() -> str:
    return f"{platform.system()} {platform.machine()}"
