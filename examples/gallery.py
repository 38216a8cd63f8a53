"""Build docs/gallery.md: run every example in its full form, keep its picture and its numbers.

    python examples/gallery.py                  # all examples, which takes minutes
    python examples/gallery.py 05 16            # only these; the others stay as they are

Options such as --data-dir and --device are passed on to the examples.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PICTURES = DOCS / "gallery"
WIDEST = 2000  # pixels
HEAD = """# Gallery

Runnable examples of the lectures: each picture with the numbers that its example printed in its
full form. `python examples/05_xor.py` runs one example. The option `--short` takes seconds, and
`--device auto` uses a GPU if one can be used. `python examples/gallery.py` builds this page. The
page [the lectures](lectures.md) names the test of each formula.
"""


def scripts():
    """Return the examples, in their order."""
    return sorted(HERE.glob("[0-9]*.py"))


def run(script, options):
    """Run an example and keep its picture, made smaller, and its text."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), "--out", folder, *options]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        picture = Image.open(Path(folder) / f"{script.stem}.png").convert("RGB")
        moving = Path(folder) / f"{script.stem}.gif"
        if moving.exists():
            shutil.copy(moving, PICTURES)
    picture.thumbnail((WIDEST, WIDEST))
    picture.quantize(256, dither=Image.Dither.NONE).save(
        PICTURES / f"{script.stem}.png", optimize=True
    )
    lines = text.rstrip().splitlines()
    lines[-1] = "after " + lines[-1].partition(".png after ")[2]
    (PICTURES / f"{script.stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def section(script):
    """Return the section of the page about an example."""
    title, _, text = ast.get_docstring(ast.parse(script.read_text("utf-8"))).partition("\n")
    numbers = (PICTURES / f"{script.stem}.txt").read_text("utf-8")
    moving = (PICTURES / f"{script.stem}.gif").exists()
    animation = f"![{title}](gallery/{script.stem}.gif)\n\n" if moving else ""
    return (
        f"\n## {int(script.stem[:2])}. {title}\n\n{text.strip()}\n\n"
        f"![{title}](gallery/{script.stem}.png)\n\n{animation}```text\n{numbers}```\n\n"
        f"[examples/{script.name}](../examples/{script.name})\n"
    )


def page():
    """Return the whole page."""
    return HEAD + "".join(map(section, scripts()))


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word.isdigit()]
    options = [word for word in sys.argv[1:] if not word.isdigit()]
    PICTURES.mkdir(exist_ok=True)
    for script in scripts():
        if not chosen or script.stem[:2] in chosen:
            print(script.stem, flush=True)
            run(script, options)
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
