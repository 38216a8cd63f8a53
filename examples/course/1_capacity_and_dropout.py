# %% [markdown]
# # Part 1. Capacity, regularisation and dropout
#
# After lecture 001: why activations matter, a network in 20 lines, how large a network should be, and how to keep a large
# one honest.

# %%
import numpy as np

import gpunn as gn

# %% [markdown]
# ## Activations
#
# Without them, layers collapse to one. With them, each has a shape and a slope:

# %%
figure, axes = gn.plot.figure(2, 3, width=3, height=2.4)
for ax, name in zip(axes, ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu"), strict=True):
    gn.plot.activation(name, ax)
figure

# %% [markdown]
# ## A network in 20 lines
#
# The lecture writes a whole network with NumPy. This is its loop, with its numbers:

# %%
rng = np.random.RandomState(0)
n, inputs, hidden, outputs = 64, 1000, 100, 10
x, y = rng.randn(n, inputs), rng.randn(n, outputs)
w1, w2 = rng.randn(inputs, hidden), rng.randn(hidden, outputs)
by_hand = []
for _ in range(50):
    h = 1 / (1 + np.exp(-x @ w1))
    found = h @ w2
    by_hand.append(np.square(found - y).sum())
    found_bar = 2.0 * (found - y)
    w2_bar = h.T @ found_bar
    w1_bar = x.T @ (found_bar @ w2.T * h * (1 - h))
    w1 -= 1e-4 * w1_bar
    w2 -= 1e-4 * w2_bar
print(f"first loss {by_hand[0]:.3f}, last {by_hand[-1]:.3f}")

# %% [markdown]
# And the same with layers, whose backward pass nobody writes:

# %%
rng = np.random.RandomState(0)
x, y = rng.randn(n, inputs), rng.randn(n, outputs)
net = gn.nn.Sequential(
    gn.nn.Linear(inputs, hidden, "sigmoid", bias=False, dtype="float64"),
    gn.nn.Linear(hidden, outputs, bias=False, dtype="float64"),
)
first, second = rng.randn(inputs, hidden), rng.randn(hidden, outputs)
net.load_state_dict({"0.weight": first, "1.weight": second})
optimizer = gn.optim.SGD(net.parameters(), lr=1e-4)
for step in range(50):
    loss = gn.ops.squared_error(net(x), y, reduction="sum")
    assert np.isclose(loss.item(), by_hand[step], rtol=1e-9)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("50 losses equal to nine digits")

# %% [markdown]
# ## Width is capacity
#
# 3, 6 and 20 hidden units on two spirals. More units bend the boundary more often.

# %%
spirals = gn.data.spirals(150, classes=2, noise=0.1)


def trained(width, regularizer=None, epochs=400):
    gn.manual_seed(1)
    made = gn.nn.Sequential(gn.nn.Linear(2, width, "relu"), gn.nn.Linear(width, 2))
    trainer = gn.Trainer(made, optimizer="adam", lr=0.03, regularizer=regularizer, seed=0)
    trainer.fit(spirals, epochs=epochs, batch_size=len(spirals), progress=False)
    return made, trainer.evaluate(spirals)["accuracy"]


figure, axes = gn.plot.figure(1, 3, width=3.4, height=3)
for ax, width in zip(axes, (3, 6, 20), strict=True):
    made, accuracy = trained(width)
    title = f"{width} units: {accuracy:.0%} right"
    gn.plot.decision_regions(made, spirals.x, spirals.y, ax, title=title)
figure

# %% [markdown]
# ## Regularise with λ, not with size
#
# The loss is the mean of the examples' losses plus λ R(W). The boundary of 20 units becomes smoother as λ grows.

# %%
figure, axes = gn.plot.figure(1, 3, width=3.4, height=3)
for ax, strength in zip(axes, (1e-4, 1e-3, 1e-2), strict=True):
    made, _ = trained(20, gn.optim.L2(strength))
    gn.plot.decision_regions(made, spirals.x, spirals.y, ax, title=f"λ = {strength:g}")
figure

# %% [markdown]
# ## Dropout
#
# *Inverted dropout* keeps each unit with probability p in training and divides by p. The mean over all masks is the output
# without masks, so nothing changes at test time. Two inputs have four masks:

# %%
dropout = gn.nn.Dropout(0.5, seed=0)
ones = np.ones((20_000, 2), np.float32)
masks = dropout(ones).numpy()
kinds, counts = np.unique(masks, axis=0, return_counts=True)
for kind, count in zip(kinds, counts / len(masks), strict=True):
    print(f"mask {kind}: {count:.3f} of the rows")
print("mean over all rows:", masks.mean(axis=0).round(2))

# %% [markdown]
# On digits, with half of the data held out:

# %%
train, test = gn.data.load_digits().split(0.5, stratify=True)
for rate in (0.0, 0.5):
    gn.manual_seed(0)
    between = [gn.nn.Dropout(rate)] if rate else []
    made = gn.nn.Sequential(gn.nn.Linear(64, 256, "relu"), *between, gn.nn.Linear(256, 10))
    trainer = gn.Trainer(made, optimizer="adam", lr=0.002, seed=0)
    history = trainer.fit(train, epochs=60, validation=test, progress=False)
    print(f"dropout {rate}: test loss {history['val_loss'][-1]:.4f}")
history.plot()

# %% [markdown]
# ## Exercises
#
# 1. Why does the sigmoid's slope never exceed 1/4? What does that do to a deep network?
# 2. A hidden layer of 10 units has 1,024 masks. Show that the network without masks is the normalised geometric mean of
#    all thinned networks, for one hidden layer, a softmax and p = 1/2.
# 3. How many masks has a layer of 4,096 units?

# %% [markdown]
# ### Solution 1

# %% tags=["solution"]
# s' = s (1 - s) is largest at s = 1/2, where it is 1/4. Each layer multiplies the error signal by at most 1/4 times its
# weights, so the first layers of a deep network get almost none.
z = gn.tensor(np.linspace(-6, 6, 1001), requires_grad=True)
gn.ops.sigmoid(z).sum().backward()
print("largest slope", z.grad.max())
assert np.isclose(z.grad.max(), 0.25)

# %% [markdown]
# ### Solution 2

# %% tags=["solution"]
import itertools

generator = np.random.default_rng(0)
h, w, bias = generator.random(10), generator.standard_normal((10, 4)), generator.standard_normal(4)
every = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
thinned = gn.ops.softmax(gn.tensor((every * h) @ w + bias)).numpy()
geometric = np.exp(np.log(thinned).mean(axis=0))
geometric /= geometric.sum()
whole = gn.ops.softmax(gn.tensor((0.5 * h @ w + bias)[None])).numpy()[0]
print("largest difference", np.abs(geometric - whole).max())
assert np.allclose(geometric, whole, atol=1e-14)

# %% [markdown]
# ### Solution 3

# %% tags=["solution"]
import math

exponent = 4096 * math.log10(2)
print(f"2^4096 = 10^{exponent:.0f}; the universe has about 10^82 atoms")
assert int(exponent) == 1233
