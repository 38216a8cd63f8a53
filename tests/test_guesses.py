"""Names that people know from other libraries get what they mean, or an answer."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn import guesses, nn, optim
from gpunn.errors import ArgumentError, UnknownNameError
from gpunn.nn.init import INITIALIZERS
from gpunn.ops import ACTIVATIONS
from gpunn.ops.elementwise_losses import LOSSES
from gpunn.optim import OPTIMIZERS, SCHEDULES
from gpunn.train import METRICS

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1]
REGISTRIES = {"activation": ACTIVATIONS, "loss": LOSSES, "optimizer": OPTIMIZERS,
              "schedule": SCHEDULES, "initializer": INITIALIZERS, "metric": METRICS}  # fmt: skip
X, Y = np.random.default_rng(0).standard_normal((8, 3)), np.arange(8) % 2
WORDS = [(kind, word, own) for kind, names in guesses.SAME.items() for word, own in names.items()]


def made(kind, name):
    """What a name of a kind makes."""
    if kind == "activation":
        return nn.Linear(3, 2, name, seed=0)
    if kind == "initializer":
        return nn.Linear(3, 2, init=name, seed=0)
    net = nn.Sequential(nn.Linear(3, 2, seed=0))
    if kind == "metric":
        return gn.Trainer(net, metrics=[name])
    return gn.Trainer(net, **{kind: name})


@pytest.mark.parametrize(("kind", "word", "own"), WORDS)
def test_another_word_is_the_same_thing(kind, word, own):
    assert own in REGISTRIES[kind]
    assert word not in REGISTRIES[kind]
    first, second = made(kind, word), made(kind, own)
    if kind == "activation":
        assert first.config() == second.config()
    elif kind == "initializer":
        np.testing.assert_array_equal(first.weight.numpy(), second.weight.numpy())
    elif kind == "loss":
        assert first.loss is second.loss
    elif kind == "metric":
        assert first.metrics[0].function is second.metrics[0].function
    else:
        assert type(getattr(first, kind)) is type(getattr(second, kind))


@pytest.mark.parametrize("word", ["Swish", "MSE", "Cross-Entropy", "ADAM-W"])
def test_capitals_and_hyphens_do_not_matter(word):
    kind = {"Swish": "activation", "ADAM-W": "optimizer"}.get(word, "loss")
    assert guesses.meant(kind, word) in REGISTRIES[kind]
    made(kind, word)


def test_a_word_for_nothing_is_still_an_error():
    for kind in REGISTRIES:
        with pytest.raises(UnknownNameError, match="nonsense"):
            made(kind, "nonsense")
    with pytest.raises(UnknownNameError, match="loss None"):
        made("loss", None)
    # Keras's take probabilities, PyTorch's multi-margin is a mean over classes.
    for word in ("categorical_crossentropy", "sparse_categorical_crossentropy", "multi_margin"):
        with pytest.raises(UnknownNameError, match=word):
            made("loss", word)


ATTRIBUTES = [(m, name) for m, names in guesses.ATTRIBUTES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), ATTRIBUTES)
def test_an_attribute_that_is_elsewhere_is_named(module, name):
    found = gn if module == "gpunn" else getattr(gn, module.removeprefix("gpunn."))
    with pytest.raises(AttributeError, match="here it is") as caught:
        getattr(found, name)
    assert guesses.ATTRIBUTES[module][name] in str(caught.value)
    assert name not in found.__all__


@pytest.mark.parametrize(
    ("module", "name", "meant"),
    [(gn, "Trainr", "Trainer"), (nn, "Sequental", "Sequential"), (optim, "Adamw", "AdamW"),
     (gn.data, "load_mist", "load_mnist"), (gn.train, "KeepBst", "KeepBest")],
)  # fmt: skip
def test_what_was_meant(module, name, meant):
    with pytest.raises(AttributeError, match=f"here it is .*{meant}"):
        getattr(module, name)
    assert not hasattr(module, "_nothing_like_this")


CALLS = {
    "Trainer.fit": lambda **given: gn.Trainer(nn.Sequential(nn.Linear(3, 2))).fit(X, Y, **given),
    "Training.__init__": lambda **given: gn.Trainer(nn.Sequential(nn.Linear(3, 2)), **given),
    "Dropout.__init__": nn.Dropout,
    "Linear.__init__": lambda **given: nn.Linear(3, 2, **given),
    "Embedding.__init__": lambda **given: nn.Embedding(3, 2, **given),
    "RMSNorm.__init__": lambda **given: nn.RMSNorm(3, **given),
    "Optimizer": optim.SGD,
    "EarlyStopping.__init__": gn.train.EarlyStopping,
    "Cosine.__init__": optim.schedules.Cosine,
    "Step.__init__": optim.schedules.Step,
    "OneCycle.__init__": optim.schedules.OneCycle,
    "batches": lambda **given: gn.data.batches(X, Y, batch_size=4, **given),
}
ARGUMENTS = [(f, name) for f, names in guesses.ARGUMENTS.items() for name in names]


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_an_argument_that_is_called_otherwise_is_answered(function, name):
    answer = guesses.ARGUMENTS[function][name]
    with pytest.raises(ArgumentError, match=f"got {name}=1, which .* does not have") as caught:
        CALLS[function](**{name: 1})
    assert answer in str(caught.value)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_no_argument_that_exists_is_answered(function, name):
    functions = {"Trainer.fit": gn.Trainer.fit, "batches": gn.data.batches}
    kinds = {"Training.__init__": [gn.Trainer], "Dropout.__init__": [nn.Dropout],
             "Linear.__init__": [nn.Linear], "Embedding.__init__": [nn.Embedding],
             "RMSNorm.__init__": [nn.RMSNorm], "EarlyStopping.__init__": [gn.train.EarlyStopping],
             "Cosine.__init__": [optim.schedules.Cosine], "Step.__init__": [optim.schedules.Step],
             "OneCycle.__init__": [optim.schedules.OneCycle],
             "Optimizer": [optim.SGD, optim.Adam]}  # fmt: skip
    for found in kinds.get(function) or [functions[function]]:
        assert name not in inspect.signature(found).parameters


@pytest.mark.parametrize("function", CALLS)
def test_other_arguments_are_python_s_errors(function):
    with pytest.raises(TypeError, match="nonsense"):
        CALLS[function](nonsense=1)


def test_there_are_150_answers():
    assert len(WORDS) + len(ATTRIBUTES) + len(ARGUMENTS) >= 150


NAMES = re.compile(r"\b(gn|nn|optim|train|ops|Trainer|Dataset)\.([A-Za-z_.0-9]+)")


@pytest.mark.parametrize("answer", sorted({
    answer for table in (guesses.ATTRIBUTES, guesses.ARGUMENTS)
    for names in table.values() for answer in names.values()
}))  # fmt: skip
def test_answers_name_what_exists(answer):
    import gpunn.sklearn  # noqa: F401 - an answer says to import it

    homes = {"gn": gn, "nn": nn, "optim": optim, "train": gn.train, "ops": gn.ops,
             "Trainer": gn.Trainer, "Dataset": gn.data.Dataset}  # fmt: skip
    for home, path in NAMES.findall(answer):
        found = homes[home]
        for part in path.strip(".").split("."):
            assert hasattr(found, part), (answer, part)
            found = getattr(found, part)


def test_every_guess_of_an_argument_is_of_a_function_that_answers():
    marked = set()
    for path in (ROOT / "gpunn").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", [])
            for inner in body if isinstance(body, list) else []:
                if isinstance(inner, ast.FunctionDef) and any(
                    isinstance(d, ast.Name) and d.id == "answers" for d in inner.decorator_list
                ):
                    own = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                    marked.add(own + inner.name)
    assert marked | {"Optimizer"} == guesses.ARGUMENTS.keys()


def test_options_of_a_named_optimizer():
    net = nn.Sequential(nn.Linear(3, 2, seed=0))
    assert gn.Trainer(net, lr=0.5).optimizer.lr == 0.5
    named = gn.Trainer(net, optimizer="adamw", lr=0.5, weight_decay=0.25).optimizer
    assert (named.lr, named.weight_decay) == (0.5, 0.25)
    assert gn.Trainer(net, optimizer="sgd").optimizer.lr == 0.01
    assert gn.Trainer(net, optimizer="sgd", weight_decay=0.1).optimizer.weight_decay == 0.1
    with pytest.raises(ArgumentError, match=r"lr.*Adam"):
        gn.Trainer(net, optimizer=optim.Adam(), lr=0.1)
    with pytest.raises(ArgumentError, match="lr=-1"):
        gn.Trainer(net, lr=-1)
