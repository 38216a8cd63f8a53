# %% [markdown]
# # Part 3. What a network can express, and how errors go back
#
# After lecture 003: XOR, patterns under shifts, bumps that make any function, error signals, and handwritten digits.

# %%
import numpy as np

import gpunn as gn

# %% [markdown]
# ## XOR
#
# Half-spaces are convex. If a line had both true points on one side, the middle between them would be there, too. But it
# is also the middle between both false points. So no line does it:

# %%
xor = gn.data.xor()
by_hand = gn.nn.constructed.xor()  # h1 = OR, h2 = AND, y = h1 and not h2
print("two thresholds, by hand:", by_hand.predict(xor.x)[:, 0])

# %% [markdown]
# A hidden layer learns it:

# %%
gn.manual_seed(0)
net = gn.nn.Sequential(gn.nn.Linear(2, 8, "tanh"), gn.nn.Linear(8, 2))
trainer = gn.Trainer(net, optimizer="adam", lr=0.03, seed=0)
trainer.fit(xor, epochs=400, batch_size=4, progress=False)
print(f"right: {trainer.evaluate(xor)['accuracy']:.0%}")
gn.plot.decision_regions(net, xor.x, xor.y, title="XOR, 8 tanh units")

# %% [markdown]
# ## Patterns under shifts
#
# Two patterns of 16 pixels in all 16 cyclic shifts. The mean of both is 1/4 at every pixel, so a linear classifier has
# nothing to go by.

# %%
patterns = gn.data.shifted_patterns()
for kind in (0, 1):
    print("mean of pattern", "AB"[kind], patterns.x[patterns.y == kind].mean(axis=0)[:4], "...")
for name, layers in {
    "linear": [gn.nn.Linear(16, 2, seed=0)],
    "16 hidden units": [gn.nn.Linear(16, 16, "relu", seed=0), gn.nn.Linear(16, 2, seed=1)],
}.items():
    trainer = gn.Trainer(gn.nn.Sequential(*layers), optimizer="adam", lr=0.02, seed=0)
    trainer.fit(patterns, epochs=300, batch_size=32, progress=False)
    print(f"{name}: {trainer.evaluate(patterns)['accuracy']:.0%} right")

# %% [markdown]
# ## Bumps make any function
#
# Four ReLUs make a bump. A sum of bumps comes as close to a function as you like, and its error falls like 1/K.


# %%
def target(x):
    return np.sin(3 * x) + x / 2


grid = np.linspace(-2, 2, 2001)[:, None]
curves = {"target": (grid, target(grid))}
for k in (10, 40):
    bumps = gn.nn.constructed.approximation(target, -2, 2, k)
    curves[f"{k} bumps"] = (grid, bumps.predict(grid))
    print(f"{k} bumps: largest error {np.abs(bumps.predict(grid) - target(grid)).max():.3f}")
gn.plot.series(curves, xlabel="x", title="Sums of bumps")

# %% [markdown]
# ## Error signals
#
# A bar above a name is an *error signal*, the derivative of the loss by that quantity. The backward pass computes each one
# from those behind it.

# %%
gn.manual_seed(4)
small = gn.nn.Sequential(gn.nn.Linear(2, 3, "sigmoid"), gn.nn.Linear(3, 2))
gn.explain.network(small, np.array([1.0, -0.5]), np.array([[0.0, 1.0]]), reduction="sum")

# %% [markdown]
# ## Digits
#
# The lecture's network for MNIST is 784-50-10. Here are its 8 x 8 cousins, which come with gpunn. For the real ones,
# write `train, test = gn.data.load_mnist()`.

# %%
train, test = gn.data.load_digits().split(0.25, seed=0)
train

# %%
gn.manual_seed(0)
model = gn.nn.Sequential(gn.nn.Linear(64, 50, "relu"), gn.nn.Linear(50, 10))
trainer = gn.Trainer(model, seed=0)
history = trainer.fit(train, epochs=60, validation=test, progress=False)
history.plot()

# %%
gn.plot.confusion_matrix(test.y, trainer.classify(test.x), names=test.classes, title="Held out")

# %% [markdown]
# What the first layer looks for:

# %%
gn.plot.filters(model[0], (8, 8), columns=10, title="Weights into 50 units")

# %% [markdown]
# ## Exercises
#
# 1. Which feature, added to x1 and x2, makes XOR linear? Train a linear layer on it.
# 2. Build the indicator of [1, 2] from two hard thresholds, and look at its values at 0.9, 1.5 and 2.1.
# 3. How many units does the construction for *any* function of D bits need? Check it for D = 6.
# 4. Which two digits does the network above confuse most?

# %% [markdown]
# ### Solution 1

# %% tags=["solution"]
gn.manual_seed(0)
product = gn.nn.Sequential(gn.nn.QuadraticFeatures(squares=False), gn.nn.Linear(3, 2))
trainer1 = gn.Trainer(product, optimizer="adam", lr=0.1, seed=0)
trainer1.fit(xor, epochs=200, batch_size=4, progress=False)
print("with x1 x2:", trainer1.evaluate(xor)["accuracy"])
assert trainer1.evaluate(xor)["accuracy"] == 1

# %% [markdown]
# ### Solution 2

# %% tags=["solution"]
indicator = gn.nn.constructed.threshold_indicator(1, 2)
values = indicator.predict(np.array([[0.9], [1.5], [2.1]]))[:, 0]
print(values)
assert values.tolist() == [0, 1, 0]

# %% [markdown]
# ### Solution 3

# %% tags=["solution"]
import itertools

bits = np.array(list(itertools.product((0.0, 1.0), repeat=6)))
wanted = np.random.default_rng(1).integers(0, 2, 64)
table = gn.nn.constructed.boolean(wanted, 6)
assert (table.predict(bits)[:, 0] == wanted).all()
print(f"2^6 = {table[0].out_features} hidden units")
assert table[0].out_features == 64

# %% [markdown]
# ### Solution 4

# %% tags=["solution"]
predicted = trainer.classify(test.x)
wrong = predicted != test.y
pairs, counts = np.unique(
    np.sort(np.stack([test.y, predicted])[:, wrong], axis=0), axis=1, return_counts=True
)
print("most confused:", pairs[:, counts.argmax()], f"{counts.max()} times")
assert wrong.mean() < 0.1
