"""A graph of seven units and eight weights: all deltas and gradients of the worked example.

Lecture 004: two inputs, four hidden units that are not in layers, one output, and the perceptron
loss E = max(0, -z7 t).
"""

from lesson import run

import gpunn as gn

WEIGHTS = ("w13", "w23", "w24", "w35", "w36", "w46", "w57", "w67")


def network(activation, a1, a2, t, weights, device=None):
    """Return the steps of one example; a1 and a2 are the inputs, t is -1 or +1."""
    g = gn.ops.get_activation(activation)

    def forward(a1, a2, t, w13, w23, w24, w35, w36, w46, w57, w67):
        z3, z4 = a1 * w13 + a2 * w23, a2 * w24
        a3, a4 = g(z3), g(z4)
        z5, z6 = a3 * w35, a3 * w36 + a4 * w46
        a5, a6 = g(z5), g(z6)
        z7 = a5 * w57 + a6 * w67
        units = {"z3": z3, "z4": z4, "a3": a3, "a4": a4, "z5": z5, "z6": z6, "a5": a5, "a6": a6}
        return units | {"z7": z7, "E": gn.ops.perceptron(z7, t)}

    inputs = {"a1": a1, "a2": a2, "t": t, **weights}
    return gn.explain.function(forward, device=device, constants=("a1", "a2", "t"), **inputs)


def main(short):
    values = (0.5, -0.8, 0.6, 0.9, -0.4, 0.7, 0.3, -1.1)
    weights = dict(zip(WEIGHTS, values, strict=True))
    for t in (-1.0, 1.0):
        steps = network("tanh", 1.0, 2.0, t, weights)
        right = float(steps["z7"].value) * t > 0
        print(f"t = {t:+.0f}: z7 = {steps['z7'].value:+.4f}, {'right' if right else 'wrong'} side")
        for name in ("z7", "a6", "a5", "a4", "a3", *WEIGHTS):
            print(f"  dE/d{name:4} = {steps[name].grad:+.6f} = {steps[name].grad_formula}")
    wrong = network("tanh", 1.0, 2.0, 1.0 if steps["z7"].value < 0 else -1.0, weights)
    return gn.plot.computation_graph(wrong, title="Lecture 004's graph: values, deltas").figure


if __name__ == "__main__":
    run(main)
