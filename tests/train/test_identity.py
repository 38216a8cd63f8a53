"""The identity of a run: a checkpoint of another run is refused, and one of this run is not."""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.errors import ModelFileError
from gpunn.fingerprint import Identity
from gpunn.train import Callback, CSVLog, EarlyStopping
from tests.contents import unpack

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5), dtype=np.float32)
Y = RNG.integers(0, 3, 60)


def scaled(scale, power=1.0):
    """A loss with numbers in its closure and in a default."""

    def loss(p, t, *, by=power):
        return gn.ops.softmax_cross_entropy(p, t) * (scale * by)

    return loss


class Own:
    """A loss with state in attributes."""

    def __init__(self, scale=1.0):
        self.scale, self.more = scale, {"shift": [0.0, 0.5]}

    def __call__(self, p, t):
        return gn.ops.softmax_cross_entropy(p, t) * self.scale


class Twice(nn.Module):
    def __init__(self, times=2.0, table=(1.0,)):
        self.times, self.table = times, np.array(table)

    def forward(self, x):
        return x * self.times


def layers(act="relu", rate=0.3, width=8, seed=1, drop_seed=None, eps=1e-5, momentum=0.1, **own):
    return [
        nn.Linear(5, width, act, seed=seed),
        nn.Dropout(rate, seed=drop_seed),
        nn.BatchNorm(width, eps=eps, momentum=momentum),
        Twice(**own),
        nn.Linear(width, 3, seed=2),
    ]


def frozen(name):
    net = nn.Sequential(*layers())
    if name == "rest":
        net.layers[2].eval()
    if name == "part":
        return net, optim.Adam(net.layers[4].parameters())
    if name == "regularize":
        net.layers[0].weight.regularize = False
    return net, optim.Adam()


def fit(folder, *, net=None, loss="softmax_cross_entropy", optimizer=None, epochs=2, given=None,
        x=X, y=Y, **options):  # fmt: skip
    net = nn.Sequential(*layers()) if net is None else net
    trainer = gn.Trainer(net, loss, optimizer or optim.Adam(), checkpoint=folder, **options)
    fit_options = {"batch_size": 16, "progress": False, **(given or {})}
    history = trainer.fit(x, y, epochs=epochs, **fit_options)
    return trainer, history


OTHERS = {
    "activation": lambda: {"net": nn.Sequential(*layers("tanh"))},
    "option of an activation": lambda: {
        "net": nn.Sequential(*layers(functools.partial(gn.ops.elu, alpha=0.5)))
    },
    "rate": lambda: {"net": nn.Sequential(*layers(rate=0.6))},
    "seed of a dropout layer": lambda: {"net": nn.Sequential(*layers(drop_seed=4))},
    "width": lambda: {"net": nn.Sequential(*layers(width=9))},
    "initial weights": lambda: {"net": nn.Sequential(*layers(seed=5))},
    "eps": lambda: {"net": nn.Sequential(*layers(eps=1e-3))},
    "momentum of batch norm": lambda: {"net": nn.Sequential(*layers(momentum=0.2))},
    "number of a module": lambda: {"net": nn.Sequential(*layers(times=3.0))},
    "array of a module": lambda: {"net": nn.Sequential(*layers(table=(2.0,)))},
    "frozen layer": lambda: {"net": frozen("rest")[0]},
    "trained parameters": lambda: dict(zip(("net", "optimizer"), frozen("part"), strict=True)),
    "regularize": lambda: {"net": frozen("regularize")[0]},
    "loss": lambda: {"loss": "multiclass_hinge"},
    "loss of a user": lambda: {"loss": scaled(1.0)},
    "optimizer": lambda: {"optimizer": optim.SGD(lr=0.001)},
    "lr": lambda: {"optimizer": optim.Adam(lr=0.5)},
    "beta1": lambda: {"optimizer": optim.Adam(beta1=0.5)},
    "beta2": lambda: {"optimizer": optim.Adam(beta2=0.5)},
    "eps of adam": lambda: {"optimizer": optim.Adam(eps=1e-4)},
    "schedule": lambda: {"schedule": "cosine"},
    "option of a schedule": lambda: {"schedule": optim.schedules.Step(every=3)},
    "regularizer": lambda: {"regularizer": optim.L2(1.0)},
    "max norm": lambda: {"regularizer": optim.MaxNorm(1.0)},
    "clip": lambda: {"clip_norm": 1.0},
    "nonfinite": lambda: {"on_nonfinite": "skip"},
    "seed": lambda: {"seed": 5},
    "batch size": lambda: {"given": {"batch_size": 15}},
    "no shuffle": lambda: {"given": {"shuffle": False}},
    "own shuffle": lambda: {"given": {"shuffle": lambda epoch, rows: np.arange(rows)[::-1]}},
    "weights": lambda: {"given": {"sample_weight": np.ones(60)}},
    "validation": lambda: {"given": {"validation": (X, Y)}},
    "stopping": lambda: {"given": {"callbacks": [EarlyStopping("loss")]}},
    "x": lambda: {"x": X + np.float32(1e-6)},
    "y": lambda: {"y": Y[::-1].copy()},
    "fewer epochs": lambda: {"epochs": 1},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_its_model_stays(name, tmp_path):
    fit(tmp_path)
    other = OTHERS[name]()
    net = other.get("net") or nn.Sequential(*layers())
    before = net.state_dict()
    with pytest.raises(ModelFileError, match=r"got a checkpoint of a run with .+; expected .+"):
        fit(tmp_path, **{**other, "net": net})
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("activation", r"model.layers.0.activation 'relu'; expected 'tanh'"),
        ("rate", r"model.layers.1.rate 0.3; expected 0.6"),
        ("lr", r"optimizer.lr 0.001; expected 0.5"),
        ("loss", r"loss softmax_cross_entropy; expected multiclass_hinge"),
        ("option of a schedule", r"schedule 'Constant'; expected 'Step'"),
        ("regularizer", r"regularizer None; expected 'L2'"),
        ("initial weights", r"initial 0.weight"),
        ("batch size", r"batch_size 16; expected 15"),
        ("x", r"data.x x \(60, 5\) float32 \w+; expected x \(60, 5\) float32"),
        ("fewer epochs", r"epochs 2 that it began; expected at most 1"),
        ("frozen layer", r"model.layers.2.training nothing; expected False"),
    ],
)
def test_the_first_setting_that_differs_is_named(name, words, tmp_path):
    fit(tmp_path)
    with pytest.raises(ModelFileError, match=words):
        fit(tmp_path, **OTHERS[name]())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: scaled(1.0), lambda: scaled(2.0)),
        (lambda: scaled(1.0), lambda: scaled(1.0, power=2.0)),
        (Own, lambda: Own(2.0)),
        (lambda: lambda p, t: gn.ops.softmax_cross_entropy(p, t),
         lambda: lambda p, t: gn.ops.softmax_cross_entropy(p, t) * 2.0),
        (lambda: gn.ops.get_loss("huber", delta=1.0), lambda: gn.ops.get_loss("huber", delta=2.0)),
        (lambda: functools.partial(scaled(1.0), by=1.0),
         lambda: functools.partial(scaled(1.0), by=2.0)),
    ],
    ids=["closure", "default", "attribute", "code", "option", "partial"],
)  # fmt: skip
def test_a_function_is_its_code_and_its_closure(old, new):
    same, again, other = (Identity({"loss": make()}).settings for make in (old, old, new))
    assert same == again
    assert same != other


def test_what_only_looks_may_differ(tmp_path, device):
    class Look(Callback):
        def __init__(self, text):
            self.text, self.seen = text, []

        def on_epoch_end(self, trainer, epoch, history):
            self.seen.append(epoch)

    expected, curves = fit(None, epochs=4)
    fit(tmp_path / "c", given={"callbacks": [Look("a")]})
    log, look = CSVLog(tmp_path / "log.csv"), Look("b")
    with gn.device(device):
        net = nn.Sequential(*layers())
    trainer, history = fit(
        tmp_path / "c",
        net=net,
        epochs=4,
        capture=False,
        every=2,
        keep=3,
        given={"callbacks": [log, look]},
    )
    assert look.seen == [3, 4]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert history.epochs == 4
    if device == "cpu":
        assert history["loss"] == curves["loss"]
        for name, value in expected.model.state_dict().items():
            np.testing.assert_array_equal(trainer.model.state_dict()[name], value)


def test_a_stateful_callback_goes_on_beside_new_ones(tmp_path):
    class Look(Callback):
        pass

    def given(*more):
        return {"callbacks": [*more, EarlyStopping("loss", patience=9)]}

    _, expected = fit(None, epochs=4, given=given())
    fit(tmp_path, given=given())
    _, history = fit(tmp_path, epochs=4, given=given(Look(), Look()))
    assert history["loss"] == expected["loss"]
    with pytest.raises(ModelFileError, match=r"callbacks.0.patience 9; expected 8"):
        fit(tmp_path, epochs=4, given={"callbacks": [EarlyStopping("loss", patience=8)]})


def test_weights_by_chance_are_not_compared_and_seeded_ones_are(tmp_path):
    seeds = gn.backends.random._SEEDS
    before, seeds.seed = seeds.seed, None
    try:
        fit(tmp_path / "a", net=nn.Sequential(nn.Linear(5, 3)))
        trainer, _ = fit(tmp_path / "a", net=nn.Sequential(nn.Linear(5, 3)), epochs=3)
        assert trainer.epoch == 3
        state = trainer.model.state_dict()
        for times in (1.0, 2.0):  # weights that were loaded are nobody's chance
            net = nn.Sequential(nn.Linear(5, 3))
            net.load_state_dict({k: times * v for k, v in state.items()})
            if times == 1.0:
                fit(tmp_path / "b", net=net)
            else:
                with pytest.raises(ModelFileError, match=r"initial 0.weight"):
                    fit(tmp_path / "b", net=net)
    finally:
        seeds.seed = before


def test_a_fit_that_was_refused_does_not_count(tmp_path):
    fit(tmp_path)
    trainer = gn.Trainer(nn.Sequential(*layers()), optimizer=optim.Adam(lr=0.5))
    trainer.checkpoints = gn.train.checkpoints.Checkpoints(tmp_path)
    for _ in range(2):  # the second call must not pass for the second fit of the run
        with pytest.raises(ModelFileError, match=r"optimizer.lr"):
            trainer.fit(X, Y, epochs=2, batch_size=16, progress=False)
    assert trainer.fits == 0


@pytest.mark.parametrize("change", ["nothing", "lr", "loss"])
def test_earlier_fits_of_a_run_are_compared_with_their_own_settings(change, tmp_path):
    class Killed(Exception):
        pass

    class Slow(Callback):
        def __init__(self, last):
            self.last = last

        def on_epoch_end(self, trainer, epoch, history):
            trainer.optimizer.lr = 0.003  # in the checkpoint, and not the rate the fit began with
            if epoch == self.last:
                raise Killed

    def script(folder, last=0, lr=0.01):
        trainer = gn.Trainer(
            nn.Sequential(*layers()), optimizer=optim.Adam(lr=lr), checkpoint=folder
        )
        trainer.fit(X, Y, epochs=2, batch_size=16, progress=False)
        if change == "loss":
            trainer.loss = gn.ops.get_loss("multiclass_hinge")
        if change == "lr":
            trainer.optimizer.lr = 0.5
        slow = Slow(last)
        trainer.fit(X, Y, epochs=3, batch_size=20, callbacks=[slow], progress=False)
        return trainer.model.state_dict()

    with pytest.raises(Killed):
        script(tmp_path, last=3)
    found, expected = script(tmp_path), script(None)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    with pytest.raises(ModelFileError, match=r"optimizer.lr 0.01; expected 0.02"):
        script(tmp_path, lr=0.02)


def test_what_nothing_identifies_is_named_once(tmp_path, caplog):
    class Locked(Own):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    with caplog.at_level(logging.WARNING, "gpunn"):
        trainer, _ = fit(tmp_path, loss=Locked())
        trainer.fit(X, Y, epochs=1, batch_size=16, progress=False)
    named = [r.getMessage() for r in caplog.records if "nothing identifies" in r.getMessage()]
    assert len(named) == 1
    assert "loss.lock" in named[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gpunn"):
        fit(tmp_path / "other", loss=scaled(1.0), given={"shuffle": lambda e, n: np.arange(n)})
    assert "nothing identifies" not in caplog.text


def test_a_file_without_settings_is_resumed_with_a_warning(tmp_path, caplog):
    """Older releases wrote such files; tests/train/test_first_format.py has one of theirs."""
    import shutil

    from tests.train.test_first_format import DATA, run

    shutil.copytree(DATA / "version_1_checkpoints", tmp_path / "run")
    with caplog.at_level(logging.WARNING, "gpunn"):
        run(tmp_path / "run", 6, Callback())
    assert caplog.text.count("did not store all settings") == 1


def test_the_settings_are_those_of_another_process(tmp_path):
    """No address, no order of a set and no identity of this process is in them."""
    code = textwrap.dedent(
        """
        import json, sys
        from tests.train.test_identity import *
        loss = Own(); loss.more["names"] = {"a", "b", "c"}
        both = optim.L2(1e-3) + optim.MaxNorm(2.0)
        given = {"callbacks": [EarlyStopping("loss")]}
        trainer, _ = fit(sys.argv[1], loss=loss, regularizer=both, given=given)
        print(json.dumps(trainer.told))
        """
    )
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    header, _ = unpack(sorted((tmp_path / "1").glob("*.safetensors"))[-1])
    assert json.loads(header["state"])["settings"] == found[0]


FORM_1 = """optimizer optimizer.lr optimizer.momentum optimizer.nesterov optimizer.slots
optimizer.rule precision seed loss schedule
regularizer clip_norm on_nonfinite trained trained.0 model model.in_features model.out_features
model.activation model._activation model.weight model.weight.data model.weight.regularize model.bias
step"""


def test_other_settings_of_own_classes_are_another_form():
    """If this fails, raise `THIS_FORM`: then checkpoints of older releases still go on."""
    from gpunn.train.identity import THIS_FORM

    trainer = gn.Trainer(nn.Linear(2, 1, bias=False, seed=0), "squared_error", "sgd")
    trainer.prepare()
    found = Identity(trainer.settings()).settings
    assert (THIS_FORM, list(found)) == ("1", FORM_1.split())
