"""The commands and their options."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import gpunn
from gpunn.backends.dtypes import PRECISIONS
from gpunn.benchmarks.command import bench
from gpunn.cli.export import export
from gpunn.cli.playground import playground
from gpunn.cli.sources import EMBEDDED, is_pattern
from gpunn.columns import KINDS
from gpunn.errors import ArgumentError
from gpunn.ops import ACTIVATIONS
from gpunn.optim import OPTIMIZERS, SCHEDULES

app = typer.Typer(
    help="Train neural networks on NumPy (CPU) or CuPy (CUDA GPU) with one piece of code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits (ships with gpunn), mnist, a file (CSV, Parquet, Feather, Excel, or NPZ with "
        "x and y), - for CSV from standard input, or a pattern such as 'part-*.parquet': files "
        "that a network reads while it trains, for data larger than memory.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N. auto chooses and prints why."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the MNIST files. By default: GPUNN_DATA_DIR, the cache, or a download."
    ),
]


EncodingOption = Annotated[
    str | None,
    typer.Option(help="CSV: the encoding of the text, such as cp1252. By default recognised."),
]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="CSV: the columns have no names; they become column_1, ..."),
]


class Task(str, Enum):
    """The task that the target of a table is for."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class ModelKind(str, Enum):
    """The kind of model to train."""

    auto = "auto"
    table = "table"
    network = "network"


NETWORK_ALONE = (
    *("activation", "optimizer", "schedule", "l2", "patience", "standardize", "precision"),
    *("checkpoint", "every", "shards"),
)
"""The options that a table model doesn't have."""


def chosen_model(context: typer.Context, data: str, model: ModelKind) -> str:
    """Return "table" or "network"."""
    if model is not ModelKind.auto:
        return str(model.value)
    given = [
        name
        for name in NETWORK_ALONE
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    with_columns = data not in EMBEDDED and Path(data).suffix != ".npz" and not is_pattern(data)
    return "table" if with_columns and not given else "network"


@app.command()
def train(
    context: typer.Context,
    data: Data = "digits",
    target: Annotated[
        str | None, typer.Option(help="The column to predict. Required for a file with columns.")
    ] = None,
    task: Annotated[Task, typer.Option(help="CSV: the task that the target is for.")] = Task.auto,
    model: Annotated[
        ModelKind,
        typer.Option(
            help="table: an ensemble that takes text, dates and missing cells. network: a plain "
            "network of numbers. auto: table for files with columns, unless an option of the "
            "network alone is given."
        ),
    ] = ModelKind.auto,
    folds: Annotated[
        int, typer.Option(help="table: the number of members. Each leaves out another part.")
    ] = 5,
    time_limit: Annotated[
        float | None,
        typer.Option(help="table: the seconds after which the training should have ended."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"table: COLUMN=KIND, what a column is: {', '.join(KINDS)}."),
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the hidden layers, comma-separated; '' for none. 256,256,256 for a "
            "table, 256,128 for a network."
        ),
    ] = None,
    activation: Annotated[
        str, typer.Option(help=f"For the hidden layers: {', '.join(sorted(ACTIVATIONS))}.")
    ] = "relu",
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Probability of dropping a hidden unit, 0 <= rate < 1. 0.15 for a table, 0.5 for "
            "a network."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the examples. 64 for a table, 60 for a network."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Examples in a step. 64 or 256 for a table, 32 for a network."),
    ] = None,
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(sorted(OPTIMIZERS))}.")] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; the optimizer's own by default.")
    ] = None,
    schedule: Annotated[str, typer.Option(help=f"{', '.join(sorted(SCHEDULES))}.")] = "cosine",
    l2: Annotated[
        float, typer.Option(help="lambda of lambda * sum(W**2), added to the loss.")
    ] = 0.0,
    patience: Annotated[
        int,
        typer.Option(help="Stop after this many epochs without a lower held-out loss; 0: never."),
    ] = 0,
    held_out: Annotated[
        float, typer.Option(help="Fraction of the data kept for testing, if it has no test set.")
    ] = 0.2,
    standardize: Annotated[
        bool | None,
        typer.Option(help="Scale features to mean 0 and deviation 1. By default: for files only."),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="CSV: the character between two cells. By default it is recognised."),
    ] = None,
    decimal: Annotated[
        str | None,
        typer.Option(help="table: the character before decimals, . or , By default recognised."),
    ] = None,
    encoding: EncodingOption = None,
    no_header: NoHeader = False,
    test: Annotated[
        str | None,
        typer.Option(help="table: a file to test on. Then all rows of DATA train."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For weights, order, dropout and the split.")] = 0,
    device: DeviceOption = "auto",
    precision: Annotated[
        str, typer.Option(help=f"{', '.join(PRECISIONS)}; all but float32 need a GPU.")
    ] = "float32",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; by default runs/DATA, then runs/DATA-2, ..."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model in the folder of --output.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; the same command resumes from the newest one."),
    ] = None,
    every: Annotated[int, typer.Option(help="Number of epochs between checkpoints.")] = 1,
    shards: Annotated[
        int | None,
        typer.Option(
            help="Pieces of a batch, which the processes of mpiexec share. The results depend on "
            "this number, and not on that of the processes."
        ),
    ] = None,
    data_dir: DataDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a network, print its test accuracy, write the model and its learning curve.

    Examples:
      gpunn train digits

      gpunn train mnist --hidden 256,256 --dropout 0.5 --device cuda

      gpunn train table.csv --target price --epochs 100
    """
    from gpunn.cli.settings import Settings
    from gpunn.cli.train import run

    settings = Settings(
        data=data,
        target=target,
        task=task.value,
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        header=False if no_header else None,
        test=test,
        model=chosen_model(context, data, model),
        folds=folds,
        time_limit=time_limit,
        kinds={name: what for name, _, what in (pair.rpartition("=") for pair in kind or ())},
        hidden=hidden,
        activation=activation,
        dropout=dropout,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        l2=l2,
        patience=patience,
        held_out=held_out,
        standardize=standardize,
        seed=seed,
        device=device,
        precision=precision,
        output=output,
        overwrite=overwrite,
        checkpoint=checkpoint,
        every=every,
        shards=shards,
        data_dir=data_dir,
        progress=not quiet,
    )
    try:
        run(settings)
    except KeyboardInterrupt:
        what = "nothing was written"
        if checkpoint is not None:
            what = f"the same command resumes from {checkpoint}"
        typer.echo(f"\ninterrupted: {what}", err=True)
        raise typer.Exit(130) from None


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(help="A model.safetensors that gpunn train wrote, or its folder.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="digits, mnist, a file (CSV, Parquet, Feather, Excel, NPZ with x, NPY), or - for "
            "CSV from standard input.",
        ),
    ] = "digits",
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="CSV file for the predictions; or, if the name ends in .npy, for the outputs of "
            "the network, (N, C) float32. Standard output by default.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class, too.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(help="Write intervals that contain a number with this probability, too."),
    ] = None,
    reasons: Annotated[
        int, typer.Option(help="table: write so many columns that move an answer most, too.")
    ] = 0,
    delimiter: Annotated[
        str | None, typer.Option(help="CSV: the character between two cells.")
    ] = None,
    encoding: EncodingOption = None,
    no_header: NoHeader = False,
    device: DeviceOption = "auto",
    data_dir: DataDir = None,
) -> None:
    """Predict with a trained model: one line for each example, with classes by their names.

    The data may have the column of the training target; then the accuracy is printed too. Files may
    have any size: 4096 examples at a time are read, predicted and written. Module.predict uses the
    same batches, so its outputs are the same to the bit.

    Examples:
      gpunn predict runs/table/model.safetensors new.csv --out predictions.csv

      zcat new.csv.gz | gpunn predict runs/table/model.safetensors - | head
    """
    from gpunn.cli.predict import Wanted, run
    from gpunn.data.dialect import Dialect

    told = Dialect(encoding, delimiter, False if no_header else None)
    try:
        run(model, data, Wanted(output, probabilities, interval, told, reasons), device, data_dir)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted" + (": nothing was written" if output else ""), err=True)
        raise typer.Exit(130) from None


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def launch(
    context: typer.Context,
    workers: Annotated[int, typer.Option("-n", "--workers", help="Processes at first.")] = 2,
    restarts: Annotated[
        int, typer.Option(help="How often to start again after a process has died.")
    ] = 3,
    limit: Annotated[
        float | None, typer.Option(help="Seconds that a process waits for the others: 300.")
    ] = None,
    mpiexec: Annotated[str | None, typer.Option(help="The path of mpiexec.")] = None,
) -> None:
    """Run a command of gpunn, or a Python script, in several processes of MPI.

    When a process dies, all start again, one fewer than before. With shards and a checkpoint the
    results have the same bits as those of an unbroken run.

    Examples:
      gpunn launch -n 4 train mnist --shards 8 --checkpoint runs/mnist

      gpunn launch -n 4 fit.py
    """
    from gpunn.distributed import launch as supervise

    command = context.args
    if not command:
        raise ArgumentError("got no command to launch; expected one: gpunn launch -n 4 train mnist")
    start = [sys.executable, *([] if command[0].endswith(".py") else ["-m", "gpunn"])]
    status = supervise(
        [*start, *command], workers, restarts=restarts, mpiexec=mpiexec, limit_s=limit
    )
    raise typer.Exit(status)


@app.command()
def doctor() -> None:
    """Tell whether the GPU can be used, and if not, the reason and the remedy."""
    from gpunn.cli.doctor import run

    run()


app.command()(export)
app.command()(playground)
app.command()(bench)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpunn {gpunn.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train neural networks on NumPy (CPU) or CuPy (CUDA GPU) with one piece of code."""
