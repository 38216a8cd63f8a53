"""The map of the lectures and the gallery against the tree."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MAP = (DOCS / "lectures.md").read_text("utf-8")
COUNTS = {"A": 11, "L": 7, "R": 4, "D": 7, "M": 25, "B": 14, "C": 12, "T": 3, "E": 20}
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in MAP.splitlines()
    if re.match(r"\| [A-Z]\d+ \|", line)
]


@cache
def functions_of(path):
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_no_id_is_missing_and_none_is_twice():
    wanted = [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]
    assert sorted(row[0] for row in ROWS) == sorted(wanted)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_has_its_place_its_test_and_its_picture(row):
    _, lecture, what, where, tests, picture = row
    assert re.fullmatch(r"all|00\d(-00\d)?( 00\d)*", lecture)
    assert what
    places, proofs = LINK.findall(where), LINK.findall(tests)
    assert places
    assert proofs
    for name, target in places:
        path = (DOCS / target).resolve()
        assert path.is_file()
        assert path.name == name
        assert path.relative_to(ROOT).parts[0] in ("gpunn", "backends", "examples")
    for name, target in proofs:
        assert name in functions_of((DOCS / target).resolve()), f"{target} has no {name}"
    for name, target in LINK.findall(picture):
        assert (DOCS / target).is_file()
        assert (ROOT / "examples" / f"{name}.py").is_file()


def test_every_test_of_the_lectures_is_named():
    named = {(Path(target).name, name) for name, target in LINK.findall(MAP)}
    for path in (ROOT / "tests" / "lectures").glob("test_*.py"):
        assert any(file == path.name for file, _ in named), f"{path.name} proves no row"


def test_the_gallery_is_the_page_that_its_command_builds():
    gallery = import_module("examples.gallery")
    assert (DOCS / "gallery.md").read_text("utf-8") == gallery.page()


def test_pictures_are_small_and_belong_to_examples():
    gallery = import_module("examples.gallery")
    stems = {script.stem for script in gallery.scripts()}
    assert len(stems) >= 20
    for ending in ("png", "txt"):
        assert {path.stem for path in gallery.PICTURES.glob(f"*.{ending}")} == stems
    for path in gallery.PICTURES.glob("*.png"):
        assert path.stat().st_size < 120_000, path.name
    for path in gallery.PICTURES.glob("*.txt"):
        assert re.search(r"^after \d+\.\d s on ", path.read_text("utf-8"), re.MULTILINE), path.name


@pytest.mark.parametrize("page", ["lectures.md", "gallery.md"])
def test_every_link_is_alive(page):
    for _, target in LINK.findall((DOCS / page).read_text("utf-8")):
        assert (DOCS / target).exists(), target
