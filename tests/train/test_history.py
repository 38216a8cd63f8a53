"""What a notebook and a terminal show of a fit, of its data and of its parts."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from types import ModuleType

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.progress_bar import progress_bar
from gpunn.train import History

pytestmark = pytest.mark.fast
VOID = {"br", "polyline"}


class Balanced(HTMLParser):
    """Checks that every tag is closed, and collects the texts."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def words(shown):
    return " ".join(Balanced(shown._repr_html_()).texts)


@pytest.fixture(scope="module")
def trainer():
    train, test = gn.data.load_digits().split(0.25, seed=0)
    net = nn.Sequential(nn.Linear(64, 8, "relu", seed=0), nn.Linear(8, 10, seed=1))
    trained = gn.Trainer(net, optimizer=optim.Adam(lr=0.01), seed=0)
    trained.fit(train, epochs=3, validation=test, progress=False)
    return trained


def test_a_history_is_a_frame(trainer):
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = trainer.history.to_frame()
    assert list(frame.columns) == list(trainer.history)
    assert frame.index.name == "epoch"
    assert list(frame.index) == [1, 2, 3]
    assert list(frame["val_loss"]) == trainer.history["val_loss"]
    assert History().to_frame().empty
    uneven = History({"loss": [1.0, 2.0], "late": [3.0]}).to_frame()
    assert np.isnan(uneven.loc[2, "late"])


def test_the_best_epoch():
    assert History({"loss": [3.0, 1.0, 2.0]}).best_epoch == 2
    assert History({"loss": [3.0, 1.0], "val_loss": [np.nan, 2.0, 1.5]}).best_epoch == 3
    assert History().best_epoch == History({"loss": [np.nan]}).best_epoch == 0


def test_a_history_shows_its_curves(trainer):
    page = trainer.history._repr_html_()
    assert page.count("<svg") == 2  # the loss and the accuracy
    assert page.count("<polyline") == 3
    assert "History of 3 epochs" in words(trainer.history)
    assert "0 epochs" in words(History())
    odd = History({"loss": [np.nan, 1.0], "val_<b>": [1.0, 1.0]}, stopped="<stop>")
    assert "<b>" not in odd._repr_html_()
    assert "<stop>" in words(odd)
    assert "nan" not in re.findall(r'points="(.*?)"', odd._repr_html_())[0]


def test_a_trainer_shows_its_model_settings_and_curves(trainer):
    said = words(trainer)
    for part in ("in_features=64", "softmax_cross_entropy", "Adam(lr=0.01", "parameters", "steps"):
        assert part in said, part
    assert trainer._repr_html_().count("<svg") == 2
    assert repr(trainer) == "<Trainer of a Sequential with 610 parameters: 3 epochs, 33 steps>"


def test_data_show_their_first_rows():
    digits = gn.data.load_digits()
    page = digits._repr_html_()
    assert page.count("<tr>") == 6
    assert "pixel_0_0" in words(digits)
    names = gn.data.Dataset(np.ones((2, 1)), np.array([0, 1]), classes=("<a>", "b"))
    assert "<a>" in words(names)
    targets = gn.data.Dataset(np.ones((2, 1)), np.ones((2, 20)))
    assert "1, 1" in words(targets)
    assert "…" in words(targets)


def test_nothing_shows_thousands_of_characters(trainer):
    long = History({"loss": [0.123456789] * 5000, "val_loss": [0.2] * 5000})
    shown = [long, trainer, trainer.model, trainer.optimizer, gn.data.load_digits()]
    shown += [gn.tensor(np.ones((500, 500))), optim.get_schedule("cosine")]
    for each in shown:
        assert len(repr(each)) < 1000, type(each)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (optim.SGD(lr=0.1, momentum=0.9), "SGD(lr=0.1, momentum=0.9"),
        (optim.L2(1e-4) + optim.MaxNorm(3.0), "Regularizers(L2(strength=0.0001), MaxNorm("),
        (optim.ElasticNet(0.5, 0.25), "ElasticNet(strength=0.5, beta=0.25)"),
        (optim.EMA(0.99), "EMA(decay=0.99)"),
        (optim.get_schedule("constant"), "Constant()"),
        (optim.schedules.Cosine(end=0.1), "Cosine(steps=None, end=0.1)"),
    ],
)
def test_parts_of_a_training_tell_their_arguments(made, text):
    assert repr(made).startswith(text)


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimizer_tells_its_arguments(name):
    made = optim.get_optimizer(name)
    assert repr(made).startswith(f"{type(made).__name__}(lr=")


def test_the_bar_of_a_notebook_is_its_own(monkeypatch):
    import tqdm.auto

    assert not isinstance(progress_bar(1, "step", shown=False), tqdm.auto.tqdm)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert isinstance(progress_bar(1, "step", shown=False), tqdm.auto.tqdm)
