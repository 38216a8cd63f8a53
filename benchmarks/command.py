"""`gpunn bench`, and in a checkout `python -m benchmarks`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gpunn.benchmarks.level import LEVELS, measure
from gpunn.benchmarks.settings import Settings
from gpunn.errors import ArgumentError, MissingExtraError

THREADS = (1, 2)  # of BLAS, for steps; everything else takes one


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(LEVELS)}, or steps/NETWORK; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Try everything; the figures mean little.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile, too: a minute or two more a row.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="Of every step, unless they take minutes.")] = 15,
    out: Annotated[Path, typer.Option(help="The JSON file; the picture lies beside it.")] = Path(
        "runs/bench/cpu.json"
    ),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the MNIST files, for the fit.")
    ] = None,
) -> None:
    """Measure training on this CPU, beside every other library that is installed.

    All contenders are timed in turn in one run. Writes a JSON file and a picture.

    Examples:
      gpunn bench --quick

      gpunn bench --only steps/mnist-mid --only engine
    """
    settings = Settings(tuple(only or ()), quick, compile, rounds, data_dir=str(data_dir or ""))
    unknown = {one.partition("/")[0] for one in settings.only} - set(LEVELS)
    if unknown:
        raise ArgumentError(f"got --only {', '.join(unknown)}; expected one of {', '.join(LEVELS)}")
    run(settings, out)


def run(settings: Settings, out: Path) -> None:
    """Measure every level that is wanted; what is there is written after each."""
    from gpunn.benchmarks.goals import judged, table
    from gpunn.benchmarks.machine import machine, versions

    record: dict[str, Any] = {"machine": machine(), "versions": versions(), "quick": settings.quick}
    print(json.dumps(record, indent=1), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    for level, what in LEVELS.items():
        if not settings.wants(level):
            continue
        print(f"\n== {level}: {what}", flush=True)
        if level == "steps":
            record[level] = {}
            for threads in THREADS:
                record[level][str(threads)] = measure(level, replace(settings, threads=threads))
                record["goals"] = judged(record[level]["1"])
                _write(record, out)
        else:
            record[level] = measure(level, settings)
            print(json.dumps(record[level], indent=1), flush=True)
        _write(record, out)
    if "goals" in record:
        print(table(record["goals"]))
    print(f"\nwritten to {out}")
    _picture(record, out.with_suffix(".png"))


def _write(record: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(_short(record), indent=1) + "\n", encoding="utf-8")


def _picture(record: dict[str, Any], path: Path) -> None:
    from gpunn.benchmarks.picture import draw

    try:
        draw(record, path)
        print(f"written to {path}")
    except MissingExtraError as error:
        print(f"no picture: {error}")


def _short(value: Any) -> Any:
    """The record with four digits of every number, and without the times of single rounds."""
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items() if name != "seconds"}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
