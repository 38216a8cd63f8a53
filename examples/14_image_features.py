"""Features of images: oriented gradients and histograms against pixels.

Lecture 001: before networks learned features, people designed them. HoG keeps the directions of
edges but not their exact places. A histogram keeps the brightness of pixels but not their places.
"""

import numpy as np
from lesson import run

import gpunn as gn


def moved_digits():
    """Place digits at random in a frame of 16 x 16 pixels, so that single pixels tell less."""
    digits = gn.data.load_digits()
    rng = np.random.default_rng(0)
    frames = np.zeros((len(digits.x), 16, 16), np.float32)
    for frame, image in zip(frames, digits.x.reshape(-1, 8, 8), strict=True):
        i, j = rng.integers(1, 8, 2)
        frame[i : i + 8, j : j + 8] = image / digits.x.max()
    return frames, digits.y


def main(short):
    print(
        f"HoG of 320 x 240 pixels: {gn.data.oriented_gradients(np.zeros((1, 240, 320))).shape[1]}"
    )
    frames, y = moved_digits()
    pixels = frames.reshape(len(frames), -1)
    hog = gn.data.oriented_gradients(frames, cell=4).astype(np.float32)
    histogram = gn.data.color_histogram(frames[..., None], bins=16).astype(np.float32)
    half, epochs, results = len(y) // 2, 20 if short else 100, {}
    gn.manual_seed(0)
    for name, x, hidden in (
        ("histogram, linear", histogram, 0),
        ("pixels, linear", pixels, 0),
        ("pixels, 64 hidden", pixels, 64),
        ("HoG, linear", hog, 0),
        ("HoG, 64 hidden", hog, 64),
    ):
        first = [gn.nn.Linear(x.shape[1], hidden, "relu")] if hidden else []
        net = gn.nn.Sequential(*first, gn.nn.Linear(hidden or x.shape[1], 10))
        trainer = gn.Trainer(net, optimizer=gn.optim.Adam(lr=0.01), seed=0)
        trainer.fit(x[:half], y[:half], epochs=epochs, batch_size=64, progress=False)
        results[name] = 100 * trainer.evaluate(x[half:], y[half:])["accuracy"]
        print(f"{name:18}: {x.shape[1]:4} features, test accuracy {results[name]:.1f} %")
    figure, axes = gn.plot.figure(1, 3, width=4)
    axes[0].imshow(frames[13], cmap="Greys")
    axes[0].set(title="a digit", xticks=[], yticks=[])
    for row, column in np.ndindex(4, 4):
        cell = hog.reshape(-1, 4, 4, 9)[13, row, column] / hog[13].max()
        for k, strength in enumerate(cell):
            angle = np.radians(20 * (k + 0.5) + 90)  # along the edge, across the gradient
            dx, dy = 1.8 * strength * np.cos(angle), 1.8 * strength * np.sin(angle)
            x, y0 = 4 * column + 1.5, 4 * row + 1.5
            axes[1].plot([x - dx, x + dx], [y0 - dy, y0 + dy], color=gn.plot.PALETTE[0])
    axes[1].set(title="edges of its cells (HoG)", xlim=(-0.5, 15.5), ylim=(15.5, -0.5))
    axes[1].set(xticks=[], yticks=[], aspect="equal")
    axes[2].barh(list(results), list(results.values()), color=gn.plot.PALETTE[0])
    axes[2].set(title="Test accuracy (%)", xlim=(0, 100))
    axes[2].invert_yaxis()
    return figure


if __name__ == "__main__":
    run(main)
