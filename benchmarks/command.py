"""The command `gpunn bench`, which is `python -m benchmarks` in a checkout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gpunn.benchmarks.level import LEVELS, measure
from gpunn.benchmarks.settings import Settings
from gpunn.errors import ArgumentError, MissingExtraError


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(LEVELS)}, or steps/NETWORK; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run everything briefly; the figures mean little.")
    ] = False,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Run torch.compile too: one or two minutes more per row."),
    ] = False,
    rounds: Annotated[
        int, typer.Option(help="Number of rounds of every step; fewer if they take minutes.")
    ] = 15,
    threads: Annotated[
        str, typer.Option(help="BLAS threads in each run of the steps; 1,1,2 makes three runs.")
    ] = "1,2",
    coretype: Annotated[
        str,
        typer.Option(help="Processor for OpenBLAS, for example SkylakeX; auto: OpenBLAS chooses."),
    ] = "",
    out: Annotated[
        Path, typer.Option(help="The JSON file; the picture is written beside it.")
    ] = Path("runs/bench/cpu.json"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the MNIST files, for the fit.")
    ] = None,
) -> None:
    """Measure training on this CPU, and compare it with every other library that is installed.

    All contenders are timed in turn in one run. The results are written to a JSON file and a
    picture.

    Examples:
      gpunn bench --quick

      gpunn bench --only steps/mnist-mid --only engine

      gpunn bench --threads 1,1,2 --coretype auto
    """
    settings = Settings(
        tuple(only or ()), quick, compile, rounds, coretype=coretype, data_dir=str(data_dir or "")
    )
    unknown = {one.partition("/")[0] for one in settings.only} - set(LEVELS)
    if unknown:
        raise ArgumentError(
            f"got --only {', '.join(unknown)}; expected one of {', '.join(LEVELS)}: name a level"
        )
    run(settings, out, _counts(threads))


def _counts(threads: str) -> list[int]:
    counts = [int(part) if part.strip().isdecimal() else 0 for part in threads.split(",")]
    if 0 in counts:
        raise ArgumentError(
            f"got --threads {threads}; expected numbers above 0: use e.g. --threads 1,2"
        )
    return counts


def run(settings: Settings, out: Path, threads: Sequence[int] = (1, 2)) -> None:
    """Measure every wanted level, and write the record after each.

    Args:
        settings: the settings of every level; the level "steps" ignores their number of threads.
        out: the JSON file.
        threads: the number of BLAS threads in each run of the steps.
    """
    from gpunn.benchmarks.goals import judged, table
    from gpunn.benchmarks.machine import versions

    record: dict[str, Any] = {
        "machine": measure("machine", settings),
        "versions": versions(),
        "quick": settings.quick,
    }
    print(json.dumps(record, indent=1), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    for level, what in LEVELS.items():
        if not settings.wants(level):
            continue
        print(f"\n== {level}: {what}", flush=True)
        if level == "steps":
            record[level] = []
            for count in threads:
                rows = measure(level, replace(settings, threads=count))
                record[level].append({"threads": count, "rows": rows})
                record["goals"] = judged([r["rows"] for r in record[level] if r["threads"] == 1])
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
    """Return the record with numbers rounded to four digits, without the times of rounds."""
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items() if name != "seconds"}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
