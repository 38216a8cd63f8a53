"""The commands as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gpunn as gn


def gpunn(*args, cwd, **env):
    return subprocess.run(
        [sys.executable, "-m", "gpunn", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"} | env,
    )


def test_train_digits_then_predict(tmp_path):
    done = gpunn("train", "digits", "--epochs", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "device: c" in done.stdout
    assert "(auto: " in done.stdout
    assert "epoch 4/4" in done.stderr
    assert "test accuracy: " in done.stdout
    folder = tmp_path / "runs" / "digits"
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors",
        "history.json",
        "learning-curve.png",
        "predictions.png",
    }
    for name in ("learning-curve.png", "predictions.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    record = json.loads((folder / "history.json").read_text())
    assert len(record["curves"]["val_accuracy"]) == 4
    assert f"{100 * record['test']['accuracy']:.2f} %" in done.stdout

    predicted = gpunn("predict", folder / "model.safetensors", "digits", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    rows = predicted.stdout.splitlines()
    assert rows[0] == "prediction"
    assert len(rows) == 1 + 1797
    assert set(rows[1:]) == set("0123456789")


def flowers(path, n=90):
    data = gn.data.blobs(n, classes=3, seed=2, spread=0.3)
    names = ["rose", "iris", "aster"]
    lines = ["width,height,species"]
    lines += [f"{a},{b},{names[c]}" for (a, b), c in zip(data.x * 50 + 7, data.y, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def test_train_and_predict_a_table(tmp_path):
    flowers(tmp_path / "flowers.csv")
    done = gpunn(
        "train",
        "flowers.csv",
        "--target",
        "species",
        "--hidden",
        8,
        "--dropout",
        0,
        "--epochs",
        40,
        "--lr",
        0.02,
        "--output",
        "out",
        "--quiet",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    args = ("predict", "out/model.safetensors", "flowers.csv", "--output", "p.csv")
    predicted = gpunn(*args, cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    accuracy = float(predicted.stderr.split("accuracy: ")[1].split(" %")[0])
    assert accuracy > 95
    assert set((tmp_path / "p.csv").read_text().split()[1:]) == {"rose", "iris", "aster"}


def test_train_and_predict_numbers(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 3))
    np.savez(tmp_path / "plane.npz", x=x, y=x @ [1.0, -2.0, 0.5] + 0.25)
    done = gpunn(
        "train", "plane.npz", "--hidden", "", "--epochs", 60, "--lr", 0.05, "--quiet", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" not in done.stdout
    predicted = gpunn("predict", "runs/plane/model.safetensors", "plane.npz", cwd=tmp_path)
    values = np.array(predicted.stdout.split()[1:], float)
    np.testing.assert_allclose(values, x @ [1.0, -2.0, 0.5] + 0.25, atol=1e-2)


def test_a_regression_far_from_zero(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(1000, 3000, (300, 2))
    price = 90_000 + 20 * x[:, 0] - 10 * x[:, 1]
    rows = [f"{a};{b};{p}" for (a, b), p in zip(x, price, strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join(["area;age;price", *rows]) + "\n")
    done = gpunn(
        "train",
        "houses.csv",
        "--target",
        "price",
        "--delimiter",
        ";",
        "--hidden",
        16,
        "--dropout",
        0,
        "--epochs",
        60,
        "--patience",
        20,
        "--lr",
        0.01,
        "--quiet",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("test r2: ")[1].split()[0]) > 0.98
    net = gn.load(tmp_path / "runs" / "houses" / "model.safetensors")
    np.testing.assert_allclose(net.predict(x)[:, 0], price, rtol=0.05)


def test_a_saved_model_takes_the_data_as_they_come(tmp_path):
    flowers(tmp_path / "flowers.csv")
    args = ("--target", "species", "--epochs", 60, "--lr", 0.02, "--quiet")
    args += ("--model", "network")
    assert gpunn("train", "flowers.csv", *args, cwd=tmp_path).returncode == 0
    data = gn.data.load_csv(tmp_path / "flowers.csv", "species")
    net = gn.load(tmp_path / "runs" / "flowers" / "model.safetensors")
    train, _ = data.split(0.2, seed=0, stratify=True)
    np.testing.assert_allclose(net[0].mean.numpy(), train.x.mean(0), rtol=1e-5)
    assert np.mean(net.classify(data.x) == data.y) > 0.95


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train", "digits", "--target", "x"), "leave it out"),
        (("train", "--epochs", "many"), "Usage: "),
        (("train", "nothing.csv"), "no such file"),
        (("train", "digits", "--activation", "rleu"), "leaky_relu"),
        (("train", "digits", "--optimizer", "adm"), "adamw"),
        (("train", "digits", "--hidden", "a,b"), "--hidden 256,128"),
        (("train", "digits", "--batch-size", "0"), "batch_size=0"),
        (("train", "digits", "--epochs", "0"), "epochs=0"),
        (("train", "digits", "--dropout", "1"), "0 <= rate < 1"),
        (("train", "digits", "--held-out", "2"), "--held-out"),
        (("train", "digits", "--device", "cuda:70"), "cannot be used"),
        (("train", "digits", "--device", "gpu"), "auto, cpu, cuda"),
        (("train", "flowers.csv"), "--target"),
        (("train", "flowers.csv", "--target", "colour"), "species"),
        (("train", "digits", "--output", "flowers.csv/x"), "--output"),
        (("predict", "flowers.csv", "digits"), "cannot be read"),
        (("predict", "missing.safetensors", "digits"), "check the path"),
    ],
)
def test_bad_input_is_one_clear_line(args, words, tmp_path):
    flowers(tmp_path / "flowers.csv", 12)
    done = gpunn(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert "epoch 1" not in done.stderr
    assert "model.safetensors" not in {p.name for p in tmp_path.rglob("*")}


def test_doctor_climbs_the_ladder(tmp_path):
    done = gpunn("doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "package" in done.stdout
    assert gn.diagnose("cuda").reason in done.stdout
    assert "arrays go to cpu by default" in done.stdout


def test_help_names_every_option_of_train(tmp_path):
    text = gpunn("train", "--help", cwd=tmp_path).stdout
    for option in ("--hidden", "--dropout", "--device", "--data-dir", "--output", "--seed"):
        assert option in text


def test_without_matplotlib_the_picture_is_missing_loudly(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    done = gpunn(
        "train", "digits", "--epochs", 1, "--quiet", cwd=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "no picture: " in done.stdout
    assert 'pip install "gpunn[plot]"' in done.stdout
    assert (tmp_path / "runs" / "digits" / "model.safetensors").exists()


def test_a_run_with_checkpoints_is_taken_up_again(tmp_path):
    common = ("train", "digits", "--quiet", "--checkpoint", "c", "--epochs")
    whole = gpunn("train", "digits", "--quiet", "--epochs", 3, "--output", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert gpunn(*common, 3, "--output", "first", cwd=tmp_path).returncode == 0
    again = gpunn(*common, 3, "--output", "second", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming from c" in again.stderr
    models = [gn.load(tmp_path / f / "model.safetensors") for f in ("whole", "second")]
    for name, value in models[0].state_dict().items():
        np.testing.assert_array_equal(value, models[1].state_dict()[name])
    other = gpunn(*common, 3, "--seed", 7, "--output", "third", cwd=tmp_path)
    assert other.returncode != 0
    assert "another folder" in other.stderr
    assert "Traceback" not in other.stderr
    assert not (tmp_path / "third" / "model.safetensors").exists()


def test_equal_runs_write_equal_bytes(tmp_path):
    for seed in (0, 1):  # of Python's hashes
        options = ("--epochs", 1, "--quiet", "--output", f"run{seed}")
        done = gpunn("train", "digits", *options, cwd=tmp_path, PYTHONHASHSEED=str(seed))
        assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"run{n}" / "model.safetensors").read_bytes() for n in (0, 1))
    assert first == second


OTHER_RUNS = [
    ("--lr", 0.1, "optimizer.lr"),
    ("--activation", "tanh", "activation"),
    ("--dropout", 0.1, "rate"),
    ("--hidden", "16", "features"),
    ("--l2", 0.1, "regularizer"),
    ("--schedule", "linear", "schedule"),
    ("--batch-size", 50, "batch_size"),
    ("--optimizer", "sgd", "optimizer"),
    ("--held-out", 0.3, "data"),
    ("--patience", 3, "data"),
    ("--epochs", 1, "epochs"),
]


def test_another_run_in_a_folder_is_refused_by_name(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from gpunn.cli.app import app

    monkeypatch.chdir(tmp_path)
    common = ["train", "digits", "--quiet", "--checkpoint", "c", "--hidden", "8"]
    first = CliRunner().invoke(app, [*common, "--epochs", "2"])
    assert first.exit_code == 0, first.output
    for option, value, name in OTHER_RUNS:
        other = CliRunner().invoke(app, [*common, "--epochs", "2", option, str(value)])
        words = str(other.exception)
        assert "a checkpoint of a run with" in words, option
        assert name in words, option
    more = CliRunner().invoke(app, [*common, "--epochs", "3", "--output", "o", "--every", "2"])
    assert more.exit_code == 0, more.output
