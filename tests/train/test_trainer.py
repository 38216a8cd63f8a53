"""The training loop: the same numbers on every device, and every bad input refused in words."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn, optim
from gpunn.data import feed as feed_module
from gpunn.errors import (
    ArgumentError,
    DataError,
    DeviceMismatchError,
    DeviceUnavailableError,
    DivergenceError,
    DTypeError,
    OutputError,
    ShapeError,
    UnknownNameError,
)
from gpunn.train import Callback, CSVLog, EarlyStopping
from gpunn.train.steps.repeated import Repeated

pytestmark = pytest.mark.fast


def network(device="cpu", rate=0.5, dtype="float32"):
    gn.manual_seed(0)
    with gn.device(device):
        return nn.Sequential(
            nn.Linear(64, 32, "relu", dtype=dtype),
            nn.Dropout(rate),
            nn.Linear(32, 32, "tanh", dtype=dtype),
            nn.Dropout(rate),
            nn.Linear(32, 10, dtype=dtype),
        )


@pytest.fixture(scope="module")
def digits():
    return gn.data.load_digits().split(0.2, stratify=True)


def fit(trainer, *args, **options):
    return trainer.fit(*args, progress=False, **options)


def test_every_device_trains_to_the_same_numbers(cuda_device, digits):
    train, test = digits
    curves, states = [], []
    for device in ("cpu", cuda_device):
        trainer = gn.Trainer(
            network(device),
            optimizer=optim.SGD(lr=0.1, momentum=0.9),
            seed=3,
            regularizer=optim.L2(1e-4),
            schedule="cosine",
            clip_norm=5.0,
        )
        history = fit(trainer, train, epochs=2, batch_size=64, validation=test)
        curves.append(history["loss"] + history["val_loss"])
        states.append([s.call for s in trainer.model.streams()])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert states[0] == states[1] == [46, 46]


def test_a_gpu_learns_digits_as_the_cpu_does(cuda_device, digits):
    """Captured, with dropout: the same accuracy, the same masks, losses that start within 1e-5."""
    train, test = digits
    accuracies, curves, masks = [], [], []
    for device in ("cpu", cuda_device):
        trainer = gn.Trainer(
            network(device, rate=0.125), optimizer=optim.SGD(lr=0.1, momentum=0.9), seed=3
        )
        history = fit(trainer, train, epochs=16, batch_size=64, validation=test)
        accuracies.append(history["val_accuracy"][-1])
        curves.append(history["loss"])
        net = trainer.model.train()
        hidden = net.backend.upload(np.ones((64, 32), np.float32))
        masks.append(
            [layer(hidden).numpy() != 0 for layer in net.layers if type(layer) is nn.Dropout]
        )
    assert min(accuracies) > 0.95
    assert abs(accuracies[0] - accuracies[1]) < 0.01
    np.testing.assert_allclose(curves[1][:2], curves[0][:2], rtol=1e-5)
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-2)
    assert len(masks[0]) == 2
    np.testing.assert_array_equal(masks[1], masks[0])


def test_float64_on_two_devices_for_20_steps(cuda_device, digits):
    train, _ = digits
    states = []
    for device in ("cpu", cuda_device):
        trainer = gn.Trainer(network(device, dtype="float64"), optimizer="adam", seed=3)
        fit(trainer, train.x[:640], train.y[:640], epochs=1, batch_size=32)
        states.append(trainer.model.state_dict())
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-9, atol=1e-12)


def test_digits_are_learned(digits):
    train, test = digits
    gn.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 256, "relu"),
        nn.Dropout(0.5),
        nn.Linear(256, 128, "relu"),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    trainer = gn.Trainer(net, schedule="cosine")
    fit(trainer, train, epochs=50, batch_size=32)
    assert trainer.evaluate(test)["accuracy"] >= 0.97


def test_the_same_seed_gives_the_same_bits_and_another_does_not(digits):
    train, _ = digits
    runs = []
    for seed in (1, 1, 2):
        trainer = gn.Trainer(network(), seed=seed)
        runs.append(fit(trainer, train, epochs=2)["loss"])
    assert runs[0] == runs[1] != runs[2]


def test_a_second_fit_goes_on_where_the_first_ended(digits):
    train, _ = digits
    whole, halves = gn.Trainer(network()), gn.Trainer(network())
    curve = fit(whole, train, epochs=4)["loss"]
    assert fit(halves, train, epochs=2)["loss"] + fit(halves, train, epochs=2)["loss"] == curve


def test_a_step_by_hand_equals_the_trainer(digits):
    train, _ = digits
    trainer = gn.Trainer(network(rate=0.0), optimizer=optim.SGD(lr=0.1), seed=5)
    fit(trainer, train, epochs=1, batch_size=100)
    net = network(rate=0.0)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    for x, y in gn.data.batches(train.x, train.y, 100, seed=5, epoch=1):
        loss = gn.ops.softmax_cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name], value)


def test_full_batch_minibatch_and_single_points_on_a_quadratic():
    """SGD on (w - t)**2 / 2: w moves by lr (t - w) a step, whatever the batch."""
    x, t = np.ones((4, 1)), np.full(4, 3.0)
    for batch, steps in ((4, 1), (2, 2), (1, 4)):
        net = nn.Linear(1, 1, bias=False, init="zeros", dtype="float64")
        trainer = gn.Trainer(net, loss="half_squared_error", optimizer=optim.SGD(lr=0.1))
        fit(trainer, x, t, epochs=3, batch_size=batch)
        expected = 3 * (1 - 0.9 ** (3 * steps))
        assert net.weight.numpy()[0, 0] == pytest.approx(expected, rel=1e-12)


def test_the_reported_loss_is_the_mean_over_examples():
    x, t = np.zeros((5, 1)), np.array([0.0, 0.0, 0.0, 0.0, 10.0])
    net = nn.Linear(1, 1, bias=False, dtype="float64")
    trainer = gn.Trainer(net, loss="half_squared_error", optimizer=optim.SGD(lr=0.0))
    history = fit(trainer, x, t, epochs=1, batch_size=4)  # batches of 4 and of 1
    assert history["loss"][0] == pytest.approx(10.0, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("binary_cross_entropy_with_logits", (0, 1)),
        ("perceptron", (-1, 1)),
        ("half_squared_error", (0, 1)),
    ],
)
def test_binary_losses(loss, targets):
    data = gn.data.blobs(200, classes=2, seed=1, spread=0.3)
    y = np.where(data.y == 1, targets[1], targets[0])
    trainer = gn.Trainer(nn.Linear(2, 1, seed=0), loss=loss, optimizer=optim.Adam(lr=0.05))
    fit(trainer, data.x, y, epochs=30)
    scores = trainer.evaluate(data.x, y)
    if loss == "half_squared_error":
        assert "accuracy" not in scores
    else:
        assert scores["accuracy"] > 0.95


def test_one_hot_targets_equal_labels(digits):
    train, test = digits
    curves = []
    for y in (train.y, np.eye(10)[train.y]):
        trainer = gn.Trainer(network(rate=0.0), seed=1)
        curves.append(fit(trainer, train.x, y, epochs=2)["loss"])
        assert "accuracy" in trainer.evaluate(test.x, np.eye(10)[test.y])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)


def test_early_stopping_brings_the_best_weights_back(digits):
    train, test = digits
    trainer = gn.Trainer(network(rate=0.0), optimizer=optim.Adam(lr=0.05))
    history = fit(trainer, train, epochs=60, validation=test, callbacks=[EarlyStopping(patience=3)])
    assert history.epochs < 60
    assert "3 epochs" in history.stopped
    best = min(history["val_loss"])
    assert history["val_loss"][-1] > best
    assert trainer.evaluate(test)["loss"] == pytest.approx(best, rel=1e-6)


def test_early_stopping_needs_its_curve(digits):
    with pytest.raises(ArgumentError, match="validation data"):
        fit(gn.Trainer(network()), digits[0], epochs=1, callbacks=[EarlyStopping()])


def test_csv_log(digits, tmp_path):
    path = tmp_path / "log.csv"
    history = fit(gn.Trainer(network()), digits[0], epochs=3, callbacks=[CSVLog(path)])
    lines = path.read_text().splitlines()
    assert lines[0].startswith("epoch,loss")
    assert [float(line.split(",")[1]) for line in lines[1:]] == history["loss"]


def test_an_unwritable_log_is_found_before_training(digits, tmp_path):
    trained = []

    class Watch(Callback):
        def on_epoch_end(self, trainer, epoch, history):
            trained.append(epoch)

    log = CSVLog(tmp_path / "missing" / "log.csv")
    with pytest.raises(OutputError, match=r"log\.csv"):
        fit(gn.Trainer(network()), digits[0], epochs=1, callbacks=[log, Watch()])
    assert not trained


def test_schedules_reach_the_update(digits):
    trainer = gn.Trainer(network(), optimizer=optim.SGD(lr=0.5), schedule="linear")
    history = fit(trainer, digits[0], epochs=2, batch_size=512)  # 3 steps an epoch
    assert history["lr"] == pytest.approx([0.5 * (1 - 2 / 6), 0.5 * (1 - 5 / 6)])


def test_divergence_names_the_layer_and_updates_nothing(digits):
    net = network(rate=0.0)
    net[2].weight.data[0, 0] = np.inf
    before = net.state_dict()
    with pytest.raises(DivergenceError, match=r"parameter '2\.weight'"):
        fit(gn.Trainer(net), digits[0], epochs=1)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_divergence_in_a_layer_without_broken_parameters():
    net = nn.Sequential(nn.Linear(1, 1, init="he_normal", seed=0), nn.Activate(gn.ops.exp))
    net[0].weight.data[...] = 1e4
    with pytest.raises(DivergenceError, match=r"layer '1' \(Activate\)"):
        fit(gn.Trainer(net, loss="squared_error"), np.ones((4, 1)), np.ones(4), epochs=1)


def test_divergence_on_a_device_is_found_at_the_end_of_the_epoch(cuda_device, digits):
    net = network(cuda_device, rate=0.0)
    net[0].bias.data.fill(np.nan)
    with pytest.raises(DivergenceError, match=r"'0\.bias'"):
        fit(gn.Trainer(net), digits[0], epochs=1)


X, Y = np.ones((6, 64), np.float32), np.arange(6)


def with_nan(x):
    x = x.copy()
    x[2, 5] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "words"),
    [
        (with_nan(X), Y, {}, DataError, "row 2, column 5"),
        (X[:0], Y[:0], {}, DataError, "at least one"),
        (X, Y[:5], {}, ShapeError, r"\(6, 64\).*\(5,\)"),
        (X[:, :60], Y, {}, ShapeError, r"\(1, 60\).*\(64, 32\)"),
        (X, Y + 5, {}, DataError, "label 10 in row 5"),
        (X, Y - 1, {}, DataError, "label -1 in row 0"),
        (X, Y * 0.5, {}, DTypeError, "integer"),
        (X.astype(str), Y, {}, DTypeError, "numbers"),
        (X, None, {}, DataError, "without targets"),
        (X, Y, {"batch_size": 0}, ArgumentError, "batch_size=0"),
        (X, Y, {"batch_size": 2.5}, ArgumentError, "batch_size=2.5"),
        (X, Y, {"epochs": 0}, ArgumentError, "epochs=0"),
        (X, Y, {"validation": X}, ArgumentError, "pair"),
        (X, Y, {"validation": (with_nan(X), Y)}, DataError, "validation"),
    ],
)
def test_bad_input_is_refused_before_training(x, y, options, error, words, device):
    net = network(device)
    before = net.state_dict()
    with pytest.raises(error, match=words):
        fit(gn.Trainer(net), x, y, **({"epochs": 1} | options))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loss": "errors"}, UnknownNameError, "half_squared_error"),
        ({"optimizer": 3}, UnknownNameError, "optimizer 3.*adam"),
        ({"device": "tpu"}, UnknownNameError, "cpu, cuda"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"device": 0}, ArgumentError, "device=0.*cuda:1"),
        ({"regularizer": "l2"}, ArgumentError, r"regularizer='l2'.*optim.L2"),
        ({"regularizer": optim.L2}, ArgumentError, "the class L2"),
    ],
)
def test_bad_arguments_of_the_trainer(options, error, words):
    with pytest.raises(error, match=words):
        gn.Trainer(network(), **options)


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        (gn.train.EarlyStopping(), r"EarlyStopping; expected a list: pass \[callback\]"),
        (None, "NoneType"),
        (["early"], r"callbacks\[0\]='early'; expected a Callback"),
        ([gn.train.EarlyStopping], "the class EarlyStopping"),
    ],
)
def test_bad_callbacks_are_refused_before_training(callbacks, words):
    trainer = gn.Trainer(network())
    with pytest.raises(ArgumentError, match=words):
        fit(trainer, X, Y, epochs=1, callbacks=callbacks)
    assert trainer.fits == 0


@pytest.mark.parametrize(
    ("loss", "words"),
    [(lambda z, t: z, r"of shape \(6, 10\).*\.mean\(\)"), (lambda z, t: None, "a NoneType")],
)
def test_a_loss_that_is_no_number_is_refused(loss, words, device):
    with pytest.raises(ArgumentError, match=words):
        fit(gn.Trainer(network(device), loss=loss), X, Y, epochs=1)


def test_a_trainer_wants_a_module():
    for model in ("net", nn.Linear):
        with pytest.raises(ArgumentError, match=r"got model=.*nn\.Sequential"):
            gn.Trainer(model)


def test_an_unusable_gpu_moves_nothing():
    if gn.diagnose("cuda").usable:
        pytest.skip("cuda:0 can be used here")
    net = network()
    with pytest.raises(DeviceUnavailableError, match="gpunn doctor"):
        gn.Trainer(net, device="cuda")
    assert str(net.device) == "cpu"


def test_data_of_another_device_is_not_moved_in_silence(cuda_device):
    x = gn.backend(cuda_device).upload(X)
    with pytest.raises(DeviceMismatchError, match=rf"{cuda_device}.*cpu"):
        fit(gn.Trainer(network()), x, Y, epochs=1)


def test_data_on_the_device_stays_there(cuda_device, digits):
    train, _ = digits
    b = gn.backend(cuda_device)
    curves = []
    for x, y in ((train.x, train.y), (b.upload(train.x), b.upload(train.y))):
        curves.append(fit(gn.Trainer(network(cuda_device)), x, y, epochs=1)["loss"])
    assert curves[0] == curves[1]


def test_a_dropout_layer_keeps_the_seed_it_was_given(digits):
    net = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5, seed=77), nn.Dropout(0.5))
    gn.Trainer(net, seed=3).prepare()
    assert [(s.seed, s.stream) for s in net.streams()] == [(77, 0), (3, 2)]


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(ArgumentError, match="another model"):
        gn.Trainer(network(), optimizer=optim.SGD(network().parameters()))


@pytest.mark.parametrize(
    ("loss", "targets", "words"),
    [
        ("binary_cross_entropy_with_logits", [-1, 1], "-1.*from 0 to 1"),
        ("binary_cross_entropy", [1, 2], "2.*from 0 to 1"),
        ("perceptron", [0, 1], r"0\.0.*2 \* y - 1"),
    ],
)
def test_targets_that_a_loss_is_not_made_for(loss, targets, words, device):
    net = nn.Sequential(nn.Linear(1, 1, "sigmoid", device=device))
    with pytest.raises(DataError, match=words):
        fit(gn.Trainer(net, loss=loss), np.ones((2, 1)), np.array(targets), epochs=1)


def test_logits_are_no_probabilities():
    logits = gn.tensor([[2.0], [-1.0]])
    with pytest.raises(DataError, match="binary_cross_entropy_with_logits"):
        gn.ops.binary_cross_entropy(logits, np.array([[1.0], [0.0]], np.float32))


def test_a_column_of_labels_is_refused():
    with pytest.raises(ShapeError, match=r"\(6, 1\).*ravel"):
        fit(gn.Trainer(network()), X, Y[:, None], epochs=1)


def test_predict_gives_what_the_loss_means(device):
    x = np.array([[-1.0], [2.0]], np.float32)

    def predicted(loss, activation="identity", outputs=1):
        with gn.device(device):
            net = nn.Linear(1, outputs, activation, bias=False)
        net.weight.data.fill(1.0)
        return gn.Trainer(net, loss=loss).classify(x).tolist()

    assert predicted("binary_cross_entropy_with_logits") == [0, 1]
    assert predicted("binary_cross_entropy", "sigmoid") == [0, 1]
    assert predicted("perceptron") == [-1, 1]
    with pytest.raises(ArgumentError, match="does not define classes"):
        predicted("squared_error")
    assert predicted("softmax_cross_entropy", outputs=2) == [0, 0]


def test_tensors_are_data_too(digits):
    train, _ = digits
    curves = []
    for x in (train.x, gn.tensor(train.x)):
        curves.append(fit(gn.Trainer(network()), x, train.y, epochs=1)["loss"])
    assert curves[0] == curves[1]


def test_the_learning_rate_is_the_users_again_after_a_fit(digits):
    optimizer = optim.SGD(lr=0.5)
    trainer = gn.Trainer(network(), optimizer=optimizer, schedule="cosine")
    fit(trainer, digits[0], epochs=1)
    assert optimizer.lr == 0.5
    optimizer.lr = 0.25
    history = fit(trainer, digits[0], epochs=1, batch_size=2000)
    assert 0 < history["lr"][0] < 0.25


def test_several_yes_or_no_outputs():
    x, y = np.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]]), np.array([[1, 0, 1], [0, 1, 1]])
    net = nn.Linear(3, 3, bias=False)
    net.weight.data[...] = np.eye(3)
    trainer = gn.Trainer(net, loss="binary_cross_entropy_with_logits")
    assert trainer.evaluate(x, y)["accuracy"] == pytest.approx(5 / 6)
    assert trainer.classify(x).tolist() == [[1, 0, 1], [0, 0, 1]]


def test_a_loss_of_the_users_gets_integer_labels(digits):
    def wide_hinge(scores, labels):
        return gn.ops.multiclass_hinge(scores, labels, margin=2.0)

    history = fit(gn.Trainer(network(), loss=wide_hinge), digits[0], epochs=2)
    assert history["loss"][1] < history["loss"][0]


def test_layers_that_the_optimizer_leaves_out_gather_no_gradients(digits):
    net = network(rate=0.0)
    trainer = gn.Trainer(net, optimizer=optim.SGD(net[4].parameters(), lr=0.0))
    fit(trainer, digits[0], epochs=1, batch_size=100, shuffle=False)
    first = net[0].weight.grad.copy()
    fit(trainer, digits[0], epochs=1, batch_size=100, shuffle=False)
    np.testing.assert_array_equal(net[0].weight.grad, first)


def test_every_epoch_has_another_order(digits):
    seen = []

    def watch(x):
        if len(x) == 32:
            seen.append(x.copy())
        return gn.tensor(x)

    net = nn.Sequential(watch, nn.Linear(64, 10))
    fit(gn.Trainer(net), digits[0].x[:32], digits[0].y[:32], epochs=2, batch_size=32)
    first, second = seen
    assert (first != second).any()
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_a_loaded_model_trains_with_dropout_on(digits):
    net = network().eval()
    fit(gn.Trainer(net), digits[0].x[:64], digits[0].y[:64], epochs=1)
    assert [s.call for s in net.streams()] == [1, 1]


def test_evaluation_in_batches_that_do_not_divide(digits):
    trainer, (_, test) = gn.Trainer(network()), digits
    whole, parts = trainer.evaluate(test), trainer.evaluate(test, batch_size=100)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert parts["accuracy"] == whole["accuracy"]
    with pytest.raises(ArgumentError, match="batch_size"):
        trainer.evaluate(test, batch_size=-1)


def test_regulariser_clip_and_constraint_in_a_step_by_hand(rng):
    x, y = rng.standard_normal((8, 3)), rng.integers(0, 2, 8)
    for regularizer in (optim.L2(0.5), optim.MaxNorm(0.3)):
        nets = [nn.Linear(3, 2, seed=0, dtype="float64") for _ in range(2)]
        trainer = gn.Trainer(
            nets[0], optimizer=optim.SGD(lr=0.1), regularizer=regularizer, clip_norm=0.2
        )
        history = fit(trainer, x, y, epochs=1, batch_size=8, shuffle=False)
        w, b = nets[1].weight.numpy(), nets[1].bias.numpy()
        z = x @ w + b
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        loss = -np.log(p[np.arange(8), y]).mean()
        gz = (p - np.eye(2)[y]) / 8
        gw, gb = x.T @ gz, gz.sum(0)
        if isinstance(regularizer, optim.L2):
            loss, gw = loss + 0.5 * (w**2).sum(), gw + w
        factor = min(1.0, 0.2 / np.sqrt((gw**2).sum() + (gb**2).sum()))
        w, b = w - 0.1 * factor * gw, b - 0.1 * factor * gb
        if isinstance(regularizer, optim.MaxNorm):
            w = w * np.minimum(1, 0.3 / np.sqrt((w**2).sum(0)))
        assert history["loss"][0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(nets[0].weight.numpy(), w, rtol=1e-12)
        np.testing.assert_allclose(nets[0].bias.numpy(), b, rtol=1e-12, atol=1e-15)


def test_the_search_for_the_broken_layer_leaves_no_trace():
    net = nn.Sequential(
        nn.BatchNorm(1), nn.Dropout(0.5, seed=0), nn.Activate(lambda x: x / 0.0), nn.Linear(1, 1)
    )
    trainer = gn.Trainer(net, loss="squared_error")
    with pytest.raises(DivergenceError, match="layer '2'"):
        fit(trainer, np.array([[1.0], [3.0]]), np.ones(2), epochs=1, shuffle=False)
    assert not net[0].running_mean.numpy().any()  # the broken step moved it, and set it back
    assert net[1].stream.call == 1


# losses that are not finite --------------------------------------------------------------------


@pytest.fixture
def with_a_bad_batch(rng):
    """Ten batches of 16 in the order of the data; the sixth overflows."""
    x, y = rng.standard_normal((160, 6), dtype=np.float32), rng.integers(0, 3, 160)
    x[5 * 16 + 3] = 3e38
    return x, y


def small(device):
    gn.manual_seed(0)
    with gn.device(device):
        net = nn.Sequential(nn.Linear(6, 8, "relu"), nn.Dropout(0.5), nn.Linear(8, 3))
    net.layers[0].weight.data[...] *= 20.0  # 3e38 times any of them is infinite
    return net


@pytest.mark.parametrize("capture", [True, False])
def test_a_broken_step_stops_the_training_of_a_gpu_in_that_step(
    capture, with_a_bad_batch, cuda_device
):
    x, y = with_a_bad_batch
    net = small(cuda_device)
    trainer = gn.Trainer(net, capture=capture)
    with pytest.raises(DivergenceError, match=r"layer '0' \(Linear\).*step 6 of epoch 1\)"):
        trainer.fit(x, y, epochs=1, batch_size=16, shuffle=False, progress=False)
    good = small(cuda_device)
    gn.Trainer(good, capture=False).fit(
        x[:80], y[:80], epochs=1, batch_size=16, shuffle=False, progress=False
    )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, good.state_dict()[name])
    assert int(trainer.optimizer.state_dict()["step"]) == 5


@pytest.mark.parametrize("capture", [True, False])
def test_a_broken_step_is_skipped_on_request(capture, with_a_bad_batch, device):
    if capture and device == "cpu":
        pytest.skip("cpu has no graphs")
    net = small(device)
    trainer = gn.Trainer(net, capture=capture, on_nonfinite="skip")
    history = trainer.fit(*with_a_bad_batch, epochs=2, batch_size=16, shuffle=False, progress=False)
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(v).all() for v in net.state_dict().values())
    assert int(trainer.optimizer.state_dict()["step"]) == 18
    assert trainer.steps == 20


def test_a_broken_step_is_ignored_on_request(with_a_bad_batch, device):
    net = small(device)
    trainer = gn.Trainer(net, on_nonfinite="ignore")
    history = trainer.fit(*with_a_bad_batch, epochs=1, batch_size=16, shuffle=False, progress=False)
    assert not np.isfinite(history["loss"]).any()
    with pytest.raises(UnknownNameError, match=r"on_nonfinite 'pray'.*ignore, skip, stop"):
        gn.Trainer(net, on_nonfinite="pray")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_same_seed_gives_the_same_bits_twice(precision, device, digits):
    if device == "cpu" and precision != "float32":
        pytest.skip("narrow products are for GPUs")
    train, _ = digits
    states = []
    for _ in range(2):
        net = network(device)
        trainer = gn.Trainer(net, seed=3, precision=precision, clip_norm=1.0)
        fit(trainer, train, epochs=2, batch_size=64)
        states.append(net.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name])


def test_the_next_order_is_found_while_the_device_computes(cuda_device, rng, monkeypatch):
    seen, permute, read = [], feed_module.permutation, Repeated.mean_loss

    def permutation(rows, seed, stream, epoch):
        seen.append(f"order of epoch {epoch}")
        return permute(rows, seed, stream, epoch)

    def mean_loss(self):
        seen.append("loss")
        return read(self)

    x, y = rng.standard_normal((20, 3), dtype=np.float32), np.arange(20) % 2
    monkeypatch.setattr(feed_module, "permutation", permutation)
    monkeypatch.setattr(Repeated, "mean_loss", mean_loss)
    with gn.device(cuda_device):
        net = nn.Sequential(nn.Linear(3, 2))
    gn.Trainer(net).fit(x, y, epochs=3, batch_size=4, progress=False)
    orders = [f"order of epoch {k}" for k in (1, 2, 3)]
    assert seen == [*orders[:2], "loss", orders[2], "loss", "loss"]


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize(
    ("order", "error"),
    [
        (np.arange(19), ShapeError),
        (np.arange(21), ShapeError),
        (np.arange(20) - 1, DataError),
        (np.arange(20) + 1, DataError),
        (np.arange(20) / 1.0, DTypeError),
        (3, ShapeError),
        (np.arange(20)[:, None], ShapeError),
    ],
    ids=["short", "long", "negative", "too large", "floats", "a number", "a column"],
)
def test_an_order_that_is_none_is_refused(order, error, capture, rng):
    x, y = rng.standard_normal((20, 3), dtype=np.float32), np.arange(20) % 2
    trainer = gn.Trainer(nn.Sequential(nn.Linear(3, 2, seed=0)), capture=capture)
    before = trainer.model.state_dict()
    with pytest.raises(error, match=r"from shuffle for 20 rows; expected \(20,\) integers"):
        trainer.fit(x, y, epochs=2, batch_size=4, shuffle=lambda *_: order, progress=False)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


# a plateau ---------------------------------------------------------------------------------------


def plateau(losses, **options):
    """The base rate after each epoch, if the curve has these numbers."""
    trainer = gn.Trainer(gn.nn.Sequential(gn.nn.Linear(2, 2, seed=0)), lr=1.0)
    trainer.prepare()
    callback, history, rates = gn.train.ReduceOnPlateau("loss", **options), gn.train.History(), []
    callback.on_fit_start(trainer)
    for epoch, loss in enumerate(losses, 1):
        history.append({"loss": loss})
        callback.on_epoch_end(trainer, epoch, history)
        rates.append(trainer.base_lr)
    return rates


def test_the_rate_falls_on_a_plateau():
    """The numbers are those of PyTorch's ReduceLROnPlateau(patience=2, threshold=0)."""
    losses = [3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert plateau(losses, factor=0.5, patience=2) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25,
                                                       0.25, 0.25, 0.125]  # fmt: skip
    assert plateau([1, 1, 1], factor=0.5, patience=0, min_lr=0.4) == [1, 0.5, 0.4]
    assert plateau([3, 2.9, 2.8], factor=0.5, patience=0, min_delta=0.5) == [1, 0.5, 0.25]
    assert plateau([3, 2.7, 2.4, 2.1], factor=0.5, patience=1, min_delta=0.5) == [1, 1, 1, 1]
    assert plateau([3, np.nan, np.nan], factor=0.5, patience=1) == [1, 1, 0.5]


def test_a_plateau_goes_on_from_a_checkpoint(tmp_path):
    x, y = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 2

    def fit(folder, epochs):
        net = gn.nn.Sequential(gn.nn.Linear(3, 2, seed=0))
        trainer = gn.Trainer(net, optimizer="sgd", lr=3.0, seed=0, checkpoint=folder)
        callbacks = [gn.train.ReduceOnPlateau("loss", factor=0.5, patience=1)]
        trainer.fit(x, y, epochs=epochs, batch_size=8, callbacks=callbacks, progress=False)
        return trainer.base_lr, net.state_dict()["0.weight"].tobytes()

    whole = fit(tmp_path / "whole", 12)
    assert whole[0] < 3
    for epochs in (5, 6, 7, 12):
        found = fit(tmp_path / "parts", epochs)
    assert found == whole


@pytest.mark.parametrize(
    "options", [{"factor": 0}, {"factor": 1.0}, {"patience": -1}, {"min_lr": -1}, {"monitor": 3}]
)
def test_what_a_plateau_refuses(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        gn.train.ReduceOnPlateau(**options)
