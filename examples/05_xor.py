"""XOR three ways: wired by hand, made linear by a feature, learned.

Lecture 003: no line separates the four points. Two hard-threshold units separate them, and so does
the feature x1 x2. A hidden layer learns features of its own.
"""

from lesson import run

import gpunn as gn

DATA = gn.data.xor()
STEPS = 400


def accuracy(net):
    return float((net.classify(DATA.x) == DATA.y).mean())


def trained(net, steps=STEPS, seed=0):
    """Train a network by Adam on the full batch, and return it."""
    trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.03), seed=seed)
    trainer.fit(DATA, epochs=steps, batch_size=4, progress=False)
    return net


def learned(seed):
    """Return a network of 8 hidden units, from the initial weights of this seed."""
    gn.manual_seed(seed)
    return trained(gn.nn.Sequential(gn.nn.Linear(2, 8, "tanh"), gn.nn.Linear(8, 2)), seed=seed)


def main(short):
    by_hand = gn.nn.constructed.xor()
    table = by_hand.predict(DATA.x)[:, 0].astype(int)
    print(f"by hand: h1 = OR, h2 = AND, y = h1 AND NOT h2: {table.tolist()}")
    gn.manual_seed(0)
    line = trained(gn.nn.Linear(2, 2), steps=20)
    feature = gn.nn.Sequential(gn.nn.QuadraticFeatures(squares=False), gn.nn.Linear(3, 2))
    trained(feature)
    print(f"a line: {accuracy(line):.0%}; a plane over (x1, x2, x1 x2): {accuracy(feature):.0%}")
    seeds = range(10 if short else 100)
    nets = [learned(seed) for seed in seeds]
    failed = [seed for seed, net in zip(seeds, nets, strict=True) if accuracy(net) < 1]
    reached = f"{len(nets) - len(failed)} of {len(nets)} seeds reach 100 %"
    print(f"learned: {reached} within {STEPS} steps; seeds that do not: {failed or 'none'}")
    figure, axes = gn.plot.figure(2, 2, width=3.6, height=3.2)
    titles = (
        "a line",
        "two thresholds, by hand",
        "linear in (x1, x2, x1 x2)",
        "8 tanh units, learned",
    )
    for ax, title, net in zip(axes, titles, (line, by_hand, feature, nets[0]), strict=True):
        gn.plot.decision_regions(net, DATA.x, DATA.y, ax, title=title)
    return figure


if __name__ == "__main__":
    run(main)
