# %% [markdown]
# # Part 2. Features, neurons and single steps
#
# After lecture 002: features that make a problem linear, a neuron that makes such a feature, gradient descent on single
# points, and what can go wrong.

# %%
import numpy as np

import gpunn as gn

# %% [markdown]
# ## A feature makes it linear
#
# Points count as "far" if they are far from the diagonal x1 = x2. No line tells them apart. The feature |x1 - x2| does.

# %%
rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
y = (np.abs(x[:, 0] - x[:, 1]) > 0.6).astype(int)


def fitted(*layers, epochs=300):
    gn.manual_seed(0)
    made = gn.nn.Sequential(*layers)
    trainer = gn.Trainer(made, optimizer="adam", lr=0.05, seed=0)
    trainer.fit(x, y, epochs=epochs, batch_size=100, progress=False)
    return made, trainer.evaluate(x, y)["accuracy"]


figure, axes = gn.plot.figure(1, 3, width=3.4, height=3)
cases = {
    "a line": [gn.nn.Linear(2, 2, seed=0)],
    "the feature |x1 - x2|": [gn.nn.DifferenceFeature(), gn.nn.Linear(2, 2, seed=0)],
    "two sigmoid units": [gn.nn.Linear(2, 2, "sigmoid", seed=3), gn.nn.Linear(2, 2, seed=0)],
}
for ax, (name, layers) in zip(axes, cases.items(), strict=True):
    made, accuracy = fitted(*layers)
    gn.plot.decision_regions(made, x, y, ax, title=f"{name}: {accuracy:.0%}")
figure

# %% [markdown]
# The two sigmoid units found the feature: each is a soft step along the normal of the diagonal, one for each side.

# %%
print("weights of the first layer, a column a unit:")
print(made[0].weight.numpy().round(1))

# %% [markdown]
# ## One neuron, one point, one step
#
# g = σ(w x + b), L = (g - y)². The lecture derives dL/dw = 2 (g - y) g (1 - g) x, "an elegant gradient", because σ' needs
# only σ itself.


# %%
def neuron(w, b):
    z = w * 0.8 + b
    g = gn.ops.sigmoid(z)
    return {"z": z, "g": g, "L": (g - 1.0) ** 2}


gn.explain.function(neuron, w=-1.0, b=0.2)

# %% [markdown]
# ## The learning rate
#
# Stochastic gradient descent on single points, for a linear neuron with y = 2 x + 1. Small steps are slow, and large ones
# fly off.

# %%
points = rng.uniform(-1, 1, (30, 1)).astype(np.float32)
targets = 2 * points + 1
curves = {}
for rate in (0.02, 0.2, 0.9):
    gn.manual_seed(0)
    single = gn.nn.Linear(1, 1)
    trainer = gn.Trainer(single, "squared_error", gn.optim.SGD(lr=rate), seed=0)
    history = trainer.fit(points, targets, epochs=10, batch_size=1, progress=False)
    curves[f"η = {rate}"] = (range(1, 11), history["loss"])
gn.plot.series(curves, xlabel="epoch", ylabel="loss", scale="log", title="Single points")

# %% [markdown]
# ## Dead units
#
# A ReLU whose input is negative for every example has the gradient 0 everywhere, and never comes back. Such units can be
# counted:

# %%
gn.manual_seed(0)
layers = [gn.nn.Linear(2, 50, "relu"), gn.nn.Linear(50, 50, "relu"), gn.nn.Linear(50, 2)]
deep = gn.nn.Sequential(*layers)
deep[1].load_state_dict({"weight": deep[1].weight.numpy(), "bias": deep[1].bias.numpy() - 2})
for name, report in gn.nn.dead_units(deep, x).items():
    print(f"layer {name}: {report.fraction:.0%} of the units are dead")

# %% [markdown]
# ## Exercises
#
# 1. With a learning rate of 1.2 the linear neuron diverges. What is the largest rate at which a step on a single point
#    (x, y) brings the neuron closer, and why?
# 2. Which features make "inside a circle around 0" linear? Show it on `gn.data.circles`.
# 3. ReLU has no derivative at 0. Lecture 000 takes 0, lecture 002 takes 1. Train with `"relu"` and `"relu_right"`. Does it
#    matter?

# %% [markdown]
# ### Solution 1

# %% tags=["solution"]
# With input (x, 1) and weights (w, b), a step multiplies the error by 1 - 2 η (x² + 1). It shrinks if η < 1 / (x² + 1).
# For x = 1 that is 1/2; the mean over x in (-1, 1) is what the curve above shows.
for at, rate, shrinks in ((1.0, 0.49, True), (1.0, 0.51, False), (0.0, 0.99, True)):
    w, b = 0.0, 0.0
    error = w * at + b - 1
    w, b = w - rate * 2 * error * at, b - rate * 2 * error
    assert (abs(w * at + b - 1) < abs(error)) is shrinks
print("η < 1 / (x² + 1)")

# %% [markdown]
# ### Solution 2

# %% tags=["solution"]
circles = gn.data.circles(300, noise=0.05)
gn.manual_seed(0)
lifted = gn.nn.Sequential(gn.nn.QuadraticFeatures(), gn.nn.Linear(5, 2))  # x1, x2, their products
trainer = gn.Trainer(lifted, optimizer="adam", lr=0.1, seed=0)
trainer.fit(circles, epochs=200, progress=False)
accuracy = trainer.evaluate(circles)["accuracy"]
print(f"with squares: {accuracy:.0%}")
assert accuracy > 0.98

# %% [markdown]
# ### Solution 3

# %% tags=["solution"]
# An input is exactly 0 almost never, once the weights are random. So the curves agree.
found = []
for name in ("relu", "relu_right"):
    gn.manual_seed(0)
    made = gn.nn.Sequential(gn.nn.Linear(2, 16, name), gn.nn.Linear(16, 2))
    trainer = gn.Trainer(made, optimizer="adam", lr=0.05, seed=0)
    found.append(trainer.fit(x, y, epochs=20, progress=False)["loss"])
assert np.allclose(*found)
print("no difference")
