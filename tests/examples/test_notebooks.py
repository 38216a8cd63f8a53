"""Notebooks are made from the scripts: their cells run in order and say what the scripts say."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stdout

import pytest

from tests.examples.loading import FOLDER
from tests.examples.test_examples import LIGHT, NUMBERS

sys.path.insert(0, str(FOLDER))
import notebooks

sys.path.remove(str(FOLDER))
pytestmark = pytest.mark.fast
COURSE = [script for script in notebooks.sources() if script.parent.name == "course"]


def cells(script):
    """The kind and the text of each cell of a script in the percent format."""
    parts = re.split(r"^# %%(.*)\n", notebooks.percent(script, short=True), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("script", notebooks.sources(), ids=lambda script: script.stem)
def test_a_notebook_begins_with_its_title_and_its_cells_are_programs(script):
    (first, title), *rest = cells(script)
    assert first.strip() == "[markdown]"
    assert title.startswith("# # ")
    for kind, text in rest:
        if "[markdown]" in kind:
            assert all(line.startswith("#") for line in text.strip().splitlines())
        else:
            compile(text, script.name, "exec")
            assert "lesson" not in text
            assert "__main__" not in text
            assert text.strip()


@pytest.mark.parametrize("name", LIGHT)
def test_the_cells_of_an_example_print_what_the_script_prints(name):
    said, scope = io.StringIO(), {}
    with redirect_stdout(said):
        for kind, text in cells(FOLDER / f"{name}.py"):
            if not kind:
                exec(compile(text, name, "exec"), scope)
    assert NUMBERS.get(name, "") in said.getvalue()
    last = cells(FOLDER / f"{name}.py")[-1][1].strip().splitlines()[-1]
    assert hasattr(eval(last, scope), "savefig")


@pytest.mark.parametrize("script", COURSE, ids=lambda script: script.stem)
def test_every_exercise_of_the_course_has_a_hidden_solution_with_a_check(script):
    found = cells(script)
    exercises = next(text for _, text in found if "## Exercises" in text)
    numbers = re.findall(r"^# (\d)\. ", exercises, re.M)
    solved = [(kind, text) for kind, text in found if "solution" in kind]
    assert len(numbers) == len(solved) >= 3
    titles = re.findall(r"### Solution (\d)", "".join(text for _, text in found))
    assert titles == numbers
    for kind, text in solved:
        assert 'tags=["solution"]' in kind
        assert "assert " in text or "gradcheck" in text


@pytest.mark.parametrize("script", COURSE, ids=lambda script: script.stem)
def test_a_notebook_hides_the_solutions(script):
    pytest.importorskip("jupytext", reason="jupytext is not installed")
    found = notebooks.notebook(script).cells
    solutions = [cell for cell in found if cell.source.startswith("### Solution")]
    hidden = [cell for cell in found if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(hidden) == len(solutions) >= 3


def test_the_course_has_a_part_for_each_lecture():
    assert [script.stem[0] for script in COURSE] == list("01234")
