"""The playground: size of the page, first paint, and steps a second beside others.

    python -m benchmarks.playground

Three contenders train the same network (2-8-8-1, tanh, Adam, batches of 16) on the spiral: the page
in a headless Chromium, `gpunn.Trainer` here, and a loop of plain JavaScript in the same Chromium,
which computes in double. They run in turn; the fastest of several rounds counts. Needs playwright
and a Chromium.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpunn import playground
from gpunn.benchmarks.machine import machine
from gpunn.benchmarks.settings import Settings
from gpunn.playground.document import KERNELS

ROUNDS, EPOCHS = 5, 200  # 200 rows in batches of 16 make 13 steps an epoch
STEPS = 13 * EPOCHS
PAGE = """epochs => {
  playground.change({});
  const begun = performance.now();
  playground.training.epochs(epochs);
  return { ms: performance.now() - begun, losses: playground.training.losses };
}"""
PAINT = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime"""
PLAIN = (Path(__file__).parent / "plain_network.js").read_text(encoding="utf-8")


def measured() -> dict[str, Any]:
    """Measure the page in a headless Chromium, and a Trainer beside it."""
    from playwright.sync_api import sync_playwright

    path = Path(tempfile.mkdtemp()) / "playground.html"
    playground.write(path)
    found: dict[str, Any] = {"page": path.stat().st_size, "kernels": KERNELS.stat().st_size}
    options = ["--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        paints = []
        for _ in range(ROUNDS):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(path.as_uri())
            tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            paints.append(tab.evaluate(PAINT))
            tab.close()
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(path.as_uri())
        program = tab.locator("#python").text_content() or ""
        rounds = [
            (tab.evaluate(PAGE, EPOCHS), _trainer(program), tab.evaluate(f"({PLAIN})({EPOCHS})"))
            for _ in range(ROUNDS)
        ]
        browser.close()
    page, trainer, plain = zip(*rounds, strict=True)
    found["first paint ms"] = min(paints)
    found["steps a second"] = {
        "page": 1000 * STEPS / min(p["ms"] for p in page),
        "Trainer": STEPS / min(seconds for seconds, _ in trainer),
        "plain JavaScript": 1000 * STEPS / min(p["ms"] for p in plain),
    }
    ours, theirs = np.array(page[0]["losses"]), np.array(trainer[0][1])
    found["difference to the default build"] = {
        epochs: float(np.abs(ours - theirs)[:epochs].max()) for epochs in (1, 10, 100, EPOCHS)
    }
    found["last loss"] = {"page": ours[-1], "Trainer": theirs[-1], "plain": plain[0]["loss"]}
    return found


def _trainer(program: str) -> tuple[float, list[float]]:
    """Run the page's program, and return the seconds of its fit and its losses."""
    before, fit = program.replace("epochs=1,", f"epochs={EPOCHS}, progress=False,").split(
        "history ="
    )
    names: dict[str, Any] = {}
    exec(before, names)
    with contextlib.redirect_stdout(io.StringIO()):
        begun = time.perf_counter()
        exec("history =" + fit, names)
        return time.perf_counter() - begun, names["history"]["loss"]


if __name__ == "__main__":
    print(machine(Settings()))
    for name, value in measured().items():
        print(f"{name}: {value}")
