"""Slow, obvious float64 formulas from the literature. Imports nothing of gpunn."""

from __future__ import annotations

import math

import numpy as np

ACTIVATIONS = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)),
    "expit": lambda x: 1 / (1 + math.exp(-x)),
    "logistic": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": lambda x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
    "relu": lambda x: max(0.0, x),
    "relu_right": lambda x: max(0.0, x),
    "leaky_relu": lambda x: max(0.1 * x, x),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_sigmoid": lambda x: x / (1 + math.exp(-1.702 * x)),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "relu6": lambda x: min(max(0.0, x), 6.0),
    "hardswish": lambda x: x * min(max(0.0, x + 3), 6.0) / 6,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hard_threshold": lambda x: 1.0 if x > 0 else 0.0,
    "identity": lambda x: x,
}


def softmax(row):
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


def log_softmax(row):
    return [math.log(p) for p in softmax(row)]


def softmax_cross_entropy(rows, labels):
    return [-math.log(softmax(row)[t]) for row, t in zip(rows, labels, strict=True)]


def smoothed_cross_entropy(rows, labels, weight, smoothing):
    """The mean over labels with weights, term by term."""
    total = mass = 0.0
    for row, label in zip(rows, labels, strict=True):
        for k, p in enumerate(softmax(row)):
            q = (1 - smoothing) * (k == label) + smoothing / len(row)
            total -= weight[k] * q * math.log(p)
        mass += weight[label]
    return total / mass


def focal(rows, labels, gamma):
    return [
        -((1 - softmax(r)[t]) ** gamma) * math.log(softmax(r)[t])
        for r, t in zip(rows, labels, strict=True)
    ]


def gaussian_nll(p, t, variance):
    return (math.log(variance) + (p - t) ** 2 / variance) / 2


def multiclass_hinge(rows, labels, margin=1.0):
    return [
        sum(max(0.0, s - row[t] + margin) for j, s in enumerate(row) if j != t)
        for row, t in zip(rows, labels, strict=True)
    ]


LOSSES = {
    "squared_error": lambda p, t: (p - t) ** 2,
    "half_squared_error": lambda p, t: (p - t) ** 2 / 2,
    "binary_cross_entropy": lambda p, t: -(t * math.log(p) + (1 - t) * math.log(1 - p)),
    "binary_cross_entropy_with_logits": lambda p, t: (
        -(t * math.log(1 / (1 + math.exp(-p))) + (1 - t) * math.log(1 - 1 / (1 + math.exp(-p))))
    ),
    "perceptron": lambda p, t: max(0.0, -p * t),
    "hinge": lambda p, t: max(0.0, 1 - p * t),
    "absolute_error": lambda p, t: abs(p - t),
    "huber": lambda p, t: (p - t) ** 2 / 2 if abs(p - t) < 1 else abs(p - t) - 0.5,
    "quantile_error": lambda p, t: abs(p - t) / 2,
    "kullback_leibler": lambda p, t: t * (math.log(t) - p) if t else 0,
    "poisson_error": lambda p, t: math.exp(p) - t * p + (t * math.log(t) - t if t else 0),
}


def linear(x, w, bias):
    n, h = len(x), len(w[0])
    return np.array(
        [
            [sum(x[i][d] * w[d][j] for d in range(len(w))) + bias[j] for j in range(h)]
            for i in range(n)
        ]
    )


def layer_norm(x, gamma, beta, eps=1e-5):
    rows = []
    for row in x:
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        rows.append(
            [
                (v - mean) / math.sqrt(variance + eps) * g + b
                for v, g, b in zip(row, gamma, beta, strict=True)
            ]
        )
    return np.array(rows)


def rms_norm(x, gamma, eps=2.0**-52):
    rows = []
    for row in x:
        root = math.sqrt(sum(v * v for v in row) / len(row) + eps)
        rows.append([v / root * g for v, g in zip(row, gamma, strict=True)])
    return np.array(rows)


def keep_mask(words, width, threshold, size):
    """Which elements the packed bits keep: bit by bit, as the documentation says."""
    mask = []
    for i in range(size):
        first = i * width
        number = (int(words[first // 64]) >> (first % 64)) & (2**width - 1)
        mask.append(number >= threshold)
    return np.array(mask)


def waves(x, frequency, phase, weight, bias):
    rows = []
    for row in x:
        found = list(row)
        for j in range(len(frequency)):
            for k in range(weight.shape[2]):
                angles = [
                    2 * math.pi * f * row[j] + p
                    for f, p in zip(frequency[j], phase[j], strict=True)
                ]
                terms = [w[k] * math.cos(a) for w, a in zip(weight[j], angles, strict=True)]
                found.append(sum(terms) + bias[j, k])
        rows.append(found)
    return rows
