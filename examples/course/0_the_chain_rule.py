# %% [markdown]
# # Part 0. A network is a formula, and its gradient is another
#
# After lecture 000: a network of two layers, its loss, the chain rule on it, stochastic gradient descent, and feedback
# alignment. You need Python and NumPy.

# %%
import numpy as np

import gpunn as gn

# %% [markdown]
# ## A product
#
# The smallest network multiplies two weights: f = a b. Its loss is L = (f - y)²/2. The lecture derives the two gradients
# by the chain rule: dL/da = (f - y) b and dL/db = a (f - y). `gn.explain` shows every number of both passes.


# %%
def forward(a, b):
    f = a * b
    return {"f": f, "L": 0.5 * (f - 1.0) ** 2}


gn.explain.function(forward, a=3.0, b=0.5)

# %% [markdown]
# The graph runs forward in blue, and the error signals come back in orange.

# %%
gn.plot.computation_graph(gn.explain.function(forward, a=3.0, b=0.5), title="L = (a b - 1)² / 2")

# %% [markdown]
# ## Two layers
#
# h = ReLU(W1 x + b1), f = W2 h + b2. A *layer* of gpunn has its weights, its activation and its backward pass.

# %%
gn.manual_seed(0)
net = gn.nn.Sequential(gn.nn.Linear(1, 20, "relu"), gn.nn.Linear(20, 1))
net

# %% [markdown]
# Data for a regression: a noisy sine.

# %%
rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, (200, 1)).astype(np.float32)
y = np.sin(x) + 0.1 * rng.standard_normal((200, 1)).astype(np.float32)

# %% [markdown]
# One step of gradient descent by hand: the loss, its gradients, and W ← W - η dL/dW.

# %%
before = gn.ops.half_squared_error(net(x), y)
before.backward()
for parameter in net.parameters():
    parameter.data -= 0.01 * parameter.grad
after = gn.ops.half_squared_error(net(x), y)
print(f"loss before {before.item():.4f}, after one step {after.item():.4f}")

# %% [markdown]
# A `Trainer` repeats such steps. Each one takes a *batch*, 20 examples here, in a new order in every epoch.

# %%
trainer = gn.Trainer(net, "half_squared_error", gn.optim.SGD(lr=0.05), seed=0)
history = trainer.fit(x, y, epochs=300, batch_size=20, progress=False)
history.plot("loss")

# %%
line = np.linspace(-3, 3, 301, dtype=np.float32)[:, None]
curves = {"sine": (line, np.sin(line)), "network": (line, net.predict(line))}
gn.plot.series(curves, xlabel="x", title="61 parameters")

# %% [markdown]
# ## Classes
#
# For classes, the last layer has one score for each class, and the loss is -log of the softmax of the right one. Its
# gradient by the scores is p - 1(y = k): the probabilities, minus 1 at the right class.

# %%
scores, label = gn.tensor([[2.0, 0.5, -1.0]], requires_grad=True), np.array([1])
gn.ops.softmax_cross_entropy(scores, label).backward()
p = np.exp(scores.numpy()) / np.exp(scores.numpy()).sum()
print("gradient ", scores.grad.round(4))
print("p - 1(y=k)", (p - [0, 1, 0]).round(4))

# %% [markdown]
# ## Feedback alignment
#
# Backpropagation sends errors back through the transposed weights. Does it have to? *Feedback alignment* sends them
# through fixed random weights. It learns, too, because the forward weights turn towards the random ones.

# %%
digits, held_out = gn.data.load_digits().split(0.2, seed=0)
gn.manual_seed(0)
random_feedback = gn.nn.FeedbackLinear(100, 10)
other = gn.nn.Sequential(gn.nn.Linear(64, 100, "sigmoid"), random_feedback)
print(f"angle before: {random_feedback.alignment():.0f} degrees")
trainer = gn.Trainer(other, optimizer=gn.optim.SGD(lr=0.5), seed=0)
history = trainer.fit(digits, epochs=30, batch_size=64, validation=held_out, progress=False)
print(f"angle after: {random_feedback.alignment():.0f} degrees")
print(f"right on held-out digits: {history['val_accuracy'][-1]:.1%}")

# %% [markdown]
# ## Exercises
#
# 1. For f = a b + a, derive dL/da on paper. Check it with `gn.gradcheck` or with `gn.explain`.
# 2. The lecture prints dL/dC = Aᵀ dL/dB for A = B C. Which factor is wrong? Show it with numbers.
# 3. Replace the ReLU of the sine network by `"tanh"`, and by `"identity"`. What does the last one fit, and why?
#
# Each solution is hidden below its number.

# %% [markdown]
# ### Solution 1

# %% tags=["solution"]
# f = a b + a, so df/da = b + 1, and dL/da = (f - y)(b + 1): two paths lead from a to f, and their parts add up.
steps = gn.explain.function(lambda a, b: {"L": 0.5 * (a * b + a - 1.0) ** 2}, a=3.0, b=0.5)
expected = (3.0 * 0.5 + 3.0 - 1.0) * (0.5 + 1)
print(steps["a"].grad, expected)
assert np.isclose(steps["a"].grad, expected)

# %% [markdown]
# ### Solution 2

# %% tags=["solution"]
# With A = B C, the gradient by C is Bᵀ dL/dA: the shapes allow nothing else if B is not square.
b, c = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
left, right = gn.tensor(b, requires_grad=True), gn.tensor(c, requires_grad=True)
(left @ right).sum().backward()
by_a = np.ones((2, 4))  # dL/dA of L = the sum of A
assert np.allclose(right.grad, b.T @ by_a)
assert np.allclose(left.grad, by_a @ c.T)
print("dL/dC = Bᵀ dL/dA, dL/dB = dL/dA Cᵀ")

# %% [markdown]
# ### Solution 3

# %% tags=["solution"]
losses = {}
for activation in ("relu", "tanh", "identity"):
    gn.manual_seed(0)
    tried = gn.nn.Sequential(gn.nn.Linear(1, 20, activation), gn.nn.Linear(20, 1))
    trainer = gn.Trainer(tried, "half_squared_error", gn.optim.SGD(lr=0.05), seed=0)
    losses[activation] = trainer.fit(x, y, epochs=300, batch_size=20, progress=False)["loss"][-1]
print(losses)
# Without an activation both layers are one: W2 (W1 x + b1) + b2 is a line.
slope, offset = np.polyfit(x[:, 0], y[:, 0], 1)
assert abs(losses["identity"] - np.mean((slope * x + offset - y) ** 2) / 2) < 0.02
