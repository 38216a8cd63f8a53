# %% [markdown]
# # Part 4. Backpropagation in any graph
#
# After lecture 004: fixed and learned features, a graph of units, why backpropagation is fast, and gradients that vanish
# or explode.

# %%
import time

import numpy as np

import gpunn as gn

# %% [markdown]
# ## Fixed features and learned ones
#
# A linear layer on random features ρ(w·x) separates more, the more features it has. A network *learns* its features, and
# needs fewer.

# %%
spirals = gn.data.spirals(200, classes=2, noise=0.1)
for width in (5, 20, 100):
    gn.manual_seed(0)
    fixed = gn.nn.Sequential(gn.nn.RandomFeatures(2, width, "relu", seed=0), gn.nn.Linear(width, 2))
    learned = gn.nn.Sequential(gn.nn.Linear(2, width, "relu"), gn.nn.Linear(width, 2))
    found = []
    for net in (fixed, learned):
        trainer = gn.Trainer(net, optimizer="adam", lr=0.02, seed=0)
        trainer.fit(spirals, epochs=300, batch_size=len(spirals), progress=False)
        found.append(trainer.evaluate(spirals)["accuracy"])
    print(f"{width:3} features: fixed {found[0]:.0%}, learned {found[1]:.0%}")

# %% [markdown]
# ## A graph of units
#
# Units need not stand in layers. The lecture's example has two inputs, four hidden units and eight weights. The loss is
# the perceptron's, E = max(0, -z7 t).

# %%
weights = dict(w13=0.5, w23=-1.0, w24=0.8, w35=1.2, w36=-0.7, w46=0.9, w57=1.0, w67=-1.5)


def graph(a1, a2, t, w13, w23, w24, w35, w36, w46, w57, w67):
    g = gn.ops.tanh
    z3, z4 = a1 * w13 + a2 * w23, a2 * w24
    a3, a4 = g(z3), g(z4)
    z5, z6 = a3 * w35, a3 * w36 + a4 * w46
    a5, a6 = g(z5), g(z6)
    z7 = a5 * w57 + a6 * w67
    return {"z3": z3, "z4": z4, "z5": z5, "z6": z6, "z7": z7, "E": gn.ops.perceptron(z7, t)}


constants = ("a1", "a2", "t")
steps = gn.explain.function(graph, a1=1.0, a2=-0.5, t=-1.0, constants=constants, **weights)
steps

# %% [markdown]
# δ7 = -t where the answer is wrong. Every other δ is a sum over the edges that leave a unit: δj = g'(zj) Σk wjk δk.

# %%
delta7 = float(steps["z7"].grad)
delta5 = (1 - np.tanh(float(steps["z5"].value)) ** 2) * weights["w57"] * delta7
print(f"delta 5 by the formula {delta5:.6f}, by the tape {float(steps['z5'].grad):.6f}")

# %% [markdown]
# ## Why it is fast
#
# The gradient is a sum over all paths. There are width^layers of them. Backpropagation visits every *edge* once.


# %%
def by_paths(weights, layer=0, j=0):
    if layer == len(weights):
        return 1.0
    row = weights[layer][j]
    return sum(w * by_paths(weights, layer + 1, k) for k, w in enumerate(row))


rng = np.random.default_rng(0)
for layers in (2, 4, 6):
    matrices = [rng.standard_normal((5, 5)) for _ in range(layers)]
    start = time.perf_counter()
    slow = by_paths(matrices)
    middle = time.perf_counter()
    x = gn.tensor(np.eye(5)[:1], requires_grad=True)
    y = x
    for matrix in matrices:
        y = y @ gn.tensor(matrix)
    y.sum().backward()
    fast = x.grad[0, 0]
    assert np.isclose(slow, fast)
    print(f"{layers} layers: {5**layers:6} paths, {25 * layers:4} edges, same gradient {fast:.4f}")

# %% [markdown]
# ## Gradients that vanish and explode
#
# The norm of the gradient of each layer's weights, in 20 layers:

# %%
x = rng.standard_normal((256, 50)).astype(np.float32)
figure, ax = gn.plot.figure()
for activation, gain in (("sigmoid", 1.0), ("tanh", 3.0), ("relu", 1.0)):
    gn.manual_seed(0)
    layers = [gn.nn.Linear(50, 50, activation, init="he_normal") for _ in range(20)]
    deep = gn.nn.Sequential(*layers, gn.nn.Linear(50, 1))
    for layer in deep.layers:
        layer.weight.data *= gain
    deep(x).sum().backward()
    gn.plot.gradient_norms(deep, ax, label=f"{activation}, weights x {gain:g}")
ax

# %% [markdown]
# ## Any graph, by its wiring
#
# Randomly wired networks work, too: `nn.Graph` takes any graph without circles. The smallest case is a layer with a way
# around it, and a notebook shows its curves:

# %%
gn.manual_seed(0)
hidden = gn.nn.Linear(64, 32, "relu")
skip = gn.nn.Residual(gn.nn.Linear(32, 32, "relu"))
net = gn.nn.Sequential(hidden, skip, gn.nn.Linear(32, 10))
train, test = gn.data.load_digits().split(0.25, seed=0)
history = gn.Trainer(net, seed=0).fit(train, epochs=30, validation=test, progress=False)
history

# %% [markdown]
# ## Exercises
#
# 1. Write δ3 of the graph by the formula, and compare it with the tape.
# 2. Check the gradients of the graph by central differences.
# 3. A network of 5 layers with 50 units each: how many paths, how many edges?
# 4. "Program the forward pass, and the backward pass comes for free." Write a loss of your own, |p - t|^1.5, and check its
#    gradient.

# %% [markdown]
# ### Solution 1

# %% tags=["solution"]
value = {name: float(steps[name].value) for name in ("z3", "z6")}
delta6 = (1 - np.tanh(value["z6"]) ** 2) * weights["w67"] * delta7
delta3 = (1 - np.tanh(value["z3"]) ** 2) * (weights["w35"] * delta5 + weights["w36"] * delta6)
print(delta3, float(steps["z3"].grad))
assert np.isclose(delta3, float(steps["z3"].grad))

# %% [markdown]
# ### Solution 2


# %% tags=["solution"]
def loss(changed):
    found = gn.explain.function(graph, a1=1.0, a2=-0.5, t=-1.0, constants=constants, **changed)
    return float(found["E"].value)


for name, weight in weights.items():
    up, down = (loss({**weights, name: weight + d}) for d in (1e-6, -1e-6))
    assert np.isclose((up - down) / 2e-6, steps[name].grad, atol=1e-6), name
print("eight gradients agree")

# %% [markdown]
# ### Solution 3

# %% tags=["solution"]
paths, edges = 50**4, 4 * 50**2
print(f"{paths:,} paths, {edges:,} edges")
assert (paths, edges) == (6_250_000, 10_000)

# %% [markdown]
# ### Solution 4


# %% tags=["solution"]
def mine(p, t):
    return (gn.ops.abs(p - t) ** 1.5).mean()


p, t = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
gn.gradcheck(lambda p: mine(p, gn.tensor(t)), p)
print("the gradient is right")
