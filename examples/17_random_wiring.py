"""Random connections can work too: networks along random graphs.

Lecture 001, after Xie et al. (2019): there are three ways to draw a random graph. Each node gets a
layer of units, and every edge goes from a lower to a higher number.
"""

from lesson import run

import gpunn as gn

wiring = gn.nn.wiring


def draw(edges, ax, title):
    """Draw the nodes in their order on a line, and the edges as arcs."""
    nodes = sorted({end for edge in edges for end in edge})
    for i, j in edges:
        arrow = {"arrowstyle": "-|>", "color": "#888888", "connectionstyle": "arc3,rad=-0.35"}
        ax.annotate("", (j, 0), (i, 0), arrowprops=arrow)
    ax.plot(nodes, [0] * len(nodes), "o", markersize=13, color=gn.plot.PALETTE[5])
    for node in nodes:
        ax.text(node, 0, str(node), ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.7, max(nodes) + 0.7), ylim=(-1, 2.2), title=title)
    ax.set_axis_off()


def main(short):
    data = gn.data.spirals(300, classes=3, noise=0.15)
    wirings = {
        "Erdős-Rényi": wiring.erdos_renyi(10, 0.3, seed=1),
        "Watts-Strogatz": wiring.watts_strogatz(10, 4, 0.5, seed=1),
        "Barabási-Albert": wiring.barabasi_albert(10, 2, seed=1),
    }
    figure, axes = gn.plot.figure(2, 3, width=4, height=3.2)
    for column, (name, edges) in enumerate(wirings.items()):
        gn.manual_seed(0)
        net = wiring.wired(edges, in_features=2, width=12, out_features=3)
        trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.005), seed=0)
        trainer.fit(data, epochs=60 if short else 300, batch_size=50, progress=False)
        accuracy = trainer.evaluate(data)["accuracy"]
        size = sum(parameter.size for parameter in net.parameters())
        print(f"{name:15}: {len(edges)} edges, {size} parameters, accuracy {accuracy:.1%}")
        draw(edges, axes[column], f"{name}, {len(edges)} edges")
        title = f"{accuracy:.0%} of the points right"
        gn.plot.decision_regions(net, data.x, data.y, axes[3 + column], title=title)
    return figure


if __name__ == "__main__":
    run(main)
