"""The names that people know from other libraries, and what they are called here.

`SAME` has other words for the same thing, which are accepted. A loss that takes something else
there, such as probabilities in place of scores, is none. All others get an error that says what to
write. One table for each way in which a name is used: values of registries, attributes of
modules, and arguments of functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

from gpunn.errors import ArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])

SAME: dict[str, dict[object, str]] = {
    "activation": {
        None: "identity", "none": "identity", "linear": "identity", "swish": "silu",
        "leakyrelu": "leaky_relu", "lrelu": "leaky_relu", "hard_swish": "hardswish",
        "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "logsoftmax": "log_softmax",
    },
    "loss": {
        "mse": "squared_error", "mse_loss": "squared_error", "l2": "squared_error",
        "mean_squared_error": "squared_error",
        "mae": "absolute_error", "l1": "absolute_error", "l1_loss": "absolute_error",
        "mean_absolute_error": "absolute_error",
        "cross_entropy": "softmax_cross_entropy", "crossentropy": "softmax_cross_entropy",
        "log_loss": "softmax_cross_entropy",
        "bce": "binary_cross_entropy", "binary_crossentropy": "binary_cross_entropy",
        "bce_with_logits": "binary_cross_entropy_with_logits",
        "bcewithlogits": "binary_cross_entropy_with_logits",
        "quantile": "quantile_error", "pinball": "quantile_error",
        "focal_loss": "focal", "kl_div": "kullback_leibler", "gaussian_nll_loss": "gaussian_nll",
        "huber_loss": "huber", "smooth_l1": "huber",
    },
    "optimizer": {"adam_w": "adamw", "rms_prop": "rmsprop", "ada_grad": "adagrad"},
    "schedule": {None: "constant", "none": "constant", "cosine_annealing": "cosine",
                 "exp": "exponential", "one_cycle": "onecycle", "multi_step": "multistep",
                 "poly": "polynomial", "cosine_restarts": "restarts", "warm_restarts": "restarts"},
    "metric": {
        "auc": "roc_auc", "roc_auc_score": "roc_auc", "logloss": "log_loss", "f1_score": "f1",
        "mae": "mean_absolute_error", "mse": "mean_squared_error", "r2_score": "r2",
        "rmse": "root_mean_squared_error", "balanced_accuracy_score": "balanced_accuracy",
    },
    "initializer": {
        "xavier": "glorot_uniform", "glorot": "glorot_uniform", "kaiming": "he_normal",
        "he": "he_normal", "zero": "zeros", "xavier_uniform": "glorot_uniform",
        "xavier_normal": "glorot_normal", "kaiming_uniform": "he_uniform",
        "kaiming_normal": "he_normal",
    },
}  # fmt: skip
"""Other words for registered names, by the kind of name."""

IN_LAYER = '"{0}" as a layer of nn.Sequential, or nn.Linear(..., activation="{0}")'
IN_TRAINER = 'Trainer(net, loss="{0}"), or ops.{0}'
NO_CONVOLUTIONS = "nothing: gpunn has fully connected networks only"
BATCHES = "gn.data.batches(x, y, batch_size=32), or pass arrays to Trainer.fit"
PREDICT = "net.predict(x), net.classify(x) or Trainer(...).evaluate(x, y)"

ATTRIBUTES: dict[str, dict[str, str]] = {
    "gpunn": {
        "seed": "gn.manual_seed(0)",
        "random_seed": "gn.manual_seed(0)",
        "set_seed": "gn.manual_seed(0)",
        "from_numpy": "gn.tensor(array)",
        "Variable": "gn.tensor(array, requires_grad=True)",
        "array": "gn.tensor(array), or the NumPy array itself",
        "Sequential": "gn.nn.Sequential",
        "Linear": "gn.nn.Linear",
        "Module": "gn.nn.Module",
        "Dataset": "gn.data.Dataset",
        "DataLoader": BATCHES,
        "utils": BATCHES,
        "functional": "gn.ops",
        "losses": "gn.ops",
        "layers": "gn.nn",
        "optimizers": "gn.optim",
        "callbacks": "gn.train",
        "metrics": "Trainer.evaluate, or scikit-learn's metrics",
        "cuda": 'gn.device("cuda"), Trainer(device="cuda"), or gn.diagnose("cuda")',
        "is_available": 'gn.diagnose("cuda").usable',
        "get_device": "gn.default_device()",
        "set_device": "gn.set_default_device(...)",
        "save_model": "gn.save(net, path)",
        "load_model": "gn.load(path)",
        "compile": "nothing: Trainer.fit and net.predict compile and record by themselves",
        "jit": "nothing: Trainer.fit and net.predict compile and record by themselves",
        "inference_mode": "gn.no_grad(), or net.predict(x)",
        "fit": "gn.Trainer(net).fit(x, y)",
        "MLPClassifier": "gn.sklearn.MLPClassifier: import gpunn.sklearn",
        "MLPRegressor": "gn.sklearn.MLPRegressor: import gpunn.sklearn",
        "patch": "gn.accel.patch()",
        "patch_sklearn": "gn.accel.patch()",
        "unpatch_sklearn": "gn.accel.unpatch()",
        "to_onnx": "gn.interop.to_onnx(net)",
        "from_onnx": "gn.interop.from_onnx(path)",
        "load_onnx": "gn.interop.from_onnx(path)",
        "from_torch": "gn.interop.from_torch(module)",
        "from_pytorch": "gn.interop.from_torch(module)",
        "load_torch": "gn.interop.load_torch(net, path)",
        "load_state_dict": "net.load_state_dict(state), also with strict=False",
        "grad": "y.backward(), then x.grad",
        "zeros": "gn.tensor(np.zeros(...))",
        "ones": "gn.tensor(np.ones(...))",
        "randn": "gn.tensor(np.random.default_rng(0).standard_normal(...))",
    },
    "gpunn.accel": {
        "patch_sklearn": "gn.accel.patch()",
        "unpatch_sklearn": "gn.accel.unpatch()",
        "enable": "gn.accel.patch()",
        "install": "gn.accel.patch()",
        "disable": "gn.accel.unpatch()",
        "uninstall": "gn.accel.unpatch()",
    },
    "gpunn.nn": {
        **{
            name: IN_LAYER.format(own)
            for name, own in {
                "ReLU": "relu",
                "ReLU6": "relu6",
                "Sigmoid": "sigmoid",
                "Tanh": "tanh",
                "ELU": "elu",
                "SELU": "selu",
                "SiLU": "silu",
                "Mish": "mish",
                "LeakyReLU": "leaky_relu",
                "Softplus": "softplus",
                "Hardswish": "hardswish",
                "Softmax": "softmax",
                "LogSoftmax": "log_softmax",
                "Identity": "identity",
                "Hardtanh": "hard_threshold",
            }.items()
        },
        "GELU": f'{IN_LAYER.format("gelu")}; "gelu_tanh" is the one with approximate="tanh"',
        **{
            name: IN_TRAINER.format(own)
            for name, own in {
                "CrossEntropyLoss": "softmax_cross_entropy",
                "MSELoss": "squared_error",
                "L1Loss": "absolute_error",
                "BCELoss": "binary_cross_entropy",
                "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
                "HuberLoss": "huber",
                "SmoothL1Loss": "huber",
                "PoissonNLLLoss": "poisson_error",
                "KLDivLoss": "kullback_leibler",
                "GaussianNLLLoss": "gaussian_nll",
                "FocalLoss": "focal",
                "NLLLoss": "softmax_cross_entropy",
                "MultiMarginLoss": "multiclass_hinge",
            }.items()
        },
        **{
            name: NO_CONVOLUTIONS
            for name in (
                "Conv1d",
                "Conv2d",
                "Conv3d",
                "MaxPool2d",
                "AvgPool2d",
                "LSTM",
                "GRU",
                "RNN",
                "Transformer",
                "MultiheadAttention",
            )
        },
        "Dense": "nn.Linear(in_features, out_features)",
        "Activation": "nn.Activate",
        "PReLU": "nn.ParametricActivation",
        "BatchNorm1d": "nn.BatchNorm",
        "BatchNormalization": "nn.BatchNorm",
        "LayerNormalization": "nn.LayerNorm",
        "RMSNormalization": "nn.RMSNorm",
        "Flatten": "nn.Activate(lambda x: x.reshape(len(x), -1))",
        "ModuleList": "a list as an attribute of your Module",
        "ModuleDict": "a dict as an attribute of your Module",
        "ParameterList": "a list as an attribute of your Module",
        "functional": "gn.ops",
        "Normalization": "nn.Standardize",
        "Input": "nothing: nn.Linear says the number of features",
        "ReLu": IN_LAYER.format("relu"),
    },
    "gpunn.optim": {
        "lr_scheduler": 'Trainer(schedule="cosine"), or optim.schedules',
        "Adagrad": "optim.AdaGrad",
        "RMSProp": "optim.RMSprop",
        "Nadam": "optim.NAdam",
        "Adamax": "optim.Adam or optim.AdamW",
        "LBFGS": "gn.train.minimize(net, x, y)",
        "StepLR": "optim.schedules.Step",
        "MultiStepLR": "optim.schedules.MultiStep",
        "ExponentialLR": "optim.schedules.Exponential",
        "OneCycleLR": "optim.schedules.OneCycle",
        "PolynomialLR": "optim.schedules.Polynomial",
        "CosineAnnealingWarmRestarts": "optim.schedules.CosineRestarts",
        "ReduceLROnPlateau": "gn.train.ReduceOnPlateau",
        "CosineAnnealingLR": 'Trainer(schedule="cosine")',
        "clip_grad_norm_": "Trainer(clip_norm=1.0), or optim.clip_by_global_norm",
        "Momentum": "optim.SGD(momentum=0.9)",
    },
    "gpunn.data": {
        "DataLoader": BATCHES,
        "TensorDataset": "gn.data.Dataset(x, y)",
        "random_split": "Dataset.split(0.2)",
        "train_test_split": "Dataset.split(0.2)",
        "StandardScaler": "gn.data.Standardizer, or nn.Standardize in the network",
        "MNIST": "gn.data.load_mnist()",
        "read_csv": "gn.data.load_csv(path, target), or load_table",
    },
    "gpunn.train": {
        "ModelCheckpoint": "Trainer(checkpoint=folder), or train.KeepBest",
        "ReduceLROnPlateau": "train.ReduceOnPlateau",
        "EMA": "Trainer(average=optim.EMA(0.999))",
        "TensorBoardLogger": "train.TensorBoard",
        "WandbLogger": "train.WandB",
        "MLFlowLogger": "train.MLflow",
        "CSVLogger": "train.CSVLog",
        "LearningRateScheduler": "Trainer(schedule=...)",
        "Checkpoint": "Trainer(checkpoint=folder)",
    },
}
"""What to write in place of an attribute, by module."""

ARGUMENTS: dict[str, dict[str, str]] = {
    "Trainer.fit": {
        "validation_data": "validation=(x, y)",
        "val_data": "validation=(x, y)",
        "eval_set": "validation=(x, y)",
        "validation_split": "validation=(x, y): split with gn.data.Dataset(x, y).split(0.2)",
        "verbose": "progress=False",
        "sample_weights": "sample_weight=",
        "class_weights": "class_weight=",
        "n_epochs": "epochs=",
        "num_epochs": "epochs=",
        "nb_epoch": "epochs=",
        "max_epochs": "epochs=",
        "max_iter": "epochs=",
        "bs": "batch_size=",
        "lr": "lr= of the Trainer",
        "learning_rate": "lr= of the Trainer",
        "seed": "seed= of the Trainer",
        "optimizer": "optimizer= of the Trainer",
        "loss": "loss= of the Trainer",
        "device": "device= of the Trainer",
    },
    "Training.__init__": {
        "learning_rate": "lr=",
        "momentum": "optimizer=gn.optim.SGD(momentum=0.9), for example",
        "criterion": "loss=",
        "loss_fn": "loss=",
        "loss_function": "loss=",
        "callbacks": "callbacks= of fit",
        "patience": "callbacks=[train.EarlyStopping(patience=3)] of fit",
        "early_stopping": "callbacks=[train.EarlyStopping(patience=3)] of fit",
        "n_iter_no_change": "callbacks=[train.EarlyStopping(patience=3)] of fit",
        "epochs": "epochs= of fit",
        "accumulate_grad_batches": "shards=4, which computes a batch in 4 pieces and adds them",
        "gradient_accumulation_steps": "shards=4, which computes a batch in 4 pieces and adds them",
        "ema": "average=optim.EMA(0.999)",
        "use_ema": "average=optim.EMA(0.999)",
        "max_epochs": "epochs= of fit",
        "batch_size": "batch_size= of fit",
        "gradient_clip_val": "clip_norm=",
        "clip_grad_norm": "clip_norm=",
        "scheduler": "schedule=",
        "lr_scheduler": "schedule=",
        "random_state": "seed=",
        "amp": 'precision="bfloat16"',
        "accelerator": 'device="cuda"',
        "gpus": 'device="cuda"; for several, group=gn.distributed.nccl()',
        "verbose": "progress= of fit",
        "jit_compile": "capture=",
        "net": "model, the first argument",
        "network": "model, the first argument",
    },
    "Dropout.__init__": {"p": "rate=", "prob": "rate=", "drop_rate": "rate="},
    "Linear.__init__": {
        "units": "out_features=, behind in_features",
        "input_dim": "in_features=",
        "input_size": "in_features=",
        "output_size": "out_features=",
        "use_bias": "bias=",
        "kernel_initializer": "init=",
        "weight_init": "init=",
    },
    "Embedding.__init__": {
        "input_dim": "num_embeddings=",
        "output_dim": "embedding_dim=",
        "mask_zero": "padding_idx=0",
        "max_norm": "Trainer(regularizer=optim.MaxNorm(1.0)), or nothing",
        "sparse": "nothing: leave it out",
        "scale_grad_by_freq": "nothing: leave it out",
        "embeddings_initializer": "layer.weight.data[...] = ... behind it",
    },
    "RMSNorm.__init__": {
        "normalized_shape": "features=",
        "elementwise_affine": "nothing: layer.requires_grad_(False) keeps gamma at 1",
        "epsilon": "eps=",
    },
    "Optimizer": {
        "betas": "two separate numbers: beta1=0.9, beta2=0.999",
        "beta_1": "beta1=",
        "beta_2": "beta2=",
        "epsilon": "eps=",
        "alpha": "decay, the weight of the past",
        "params": "parameters, or none for a Trainer",
        "learning_rate": "lr",
    },
    "Cosine.__init__": {"T_max": "steps=", "eta_min": "end=, as a factor of lr"},
    "Step.__init__": {"step_size": "every=", "T_max": "every="},
    "OneCycle.__init__": {"max_lr": "lr= of the Trainer", "total_steps": "nothing: leave it out"},
    "EarlyStopping.__init__": {
        "mode": "nothing: a loss should fall and an accuracy should rise",
        "restore_best_weights": "train.KeepBest() beside it",
        "tolerance": "min_delta=",
    },
    "batches": {"num_workers": "nothing: leave it out", "bs": "batch_size="},
}
"""What to write in place of an argument, by the function that gets it."""


def meant(kind: str, name: object) -> object:
    """Return the registered name that another word stands for; any other value as it is."""
    known = SAME.get(kind)
    if known is None or not (name is None or isinstance(name, str)):
        return name
    return known.get(name if name is None else name.lower().replace("-", "_"), name)


def missing(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """Return the error for an attribute that a module of gpunn does not have.

    Args:
        module: the name of the module.
        name: the attribute.
        known: the names that it has.
    """
    words = f"module {module!r} has no attribute {name!r}"
    answer = ATTRIBUTES.get(module, {}).get(name)
    if answer is None and not name.startswith("_"):
        from difflib import get_close_matches

        names = list(known)
        alike = [each for each in names if each.lower() == name.lower()]
        alike = alike or get_close_matches(name, names, 3)
        answer = " or ".join(alike) if alike else None
    return AttributeError(words if answer is None else f"{words}; here it is {answer}")


def answers(function: Function) -> Function:
    """Make a function answer arguments that other libraries have; see `ARGUMENTS`.

    The error is an `ArgumentError`. Other unknown arguments are Python's errors.
    """
    what = function.__qualname__

    @wraps(function)
    def answering(*args: Any, **given: Any) -> Any:
        if not given.keys().isdisjoint(ARGUMENTS[what]):
            answer(what, what.removesuffix(".__init__"), given)
        return function(*args, **given)

    return answering  # type: ignore[return-value]


def answer(function: str, name: str, given: Mapping[str, Any]) -> None:
    """Check that no argument has a name that only other libraries use.

    Args:
        function: the function in `ARGUMENTS`.
        name: its name in the message.
        given: the arguments that it got.

    Raises:
        ArgumentError: one has such a name.
    """
    known = ARGUMENTS[function]
    for argument, value in given.items():
        if argument in known:
            raise ArgumentError(
                f"got {argument}={value!r}, which {name} does not have; expected {known[argument]}"
            )
