"""The page in a headless Chromium, and programs of the page run with gpunn."""

from __future__ import annotations

import contextlib
import io

import pytest

from gpunn import playground


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the written page."""
    path = tmp_path_factory.mktemp("page") / "playground.html"
    playground.write(path)
    return path.as_uri()


@pytest.fixture
def page(tab, address):
    """The page, opened with its default state."""
    tab.goto(address)
    return tab


TRAINED = """([values, epochs]) => {
  playground.change(values);
  playground.once(() => playground.training.epochs(epochs));
  const { losses, tests } = playground.training;
  const python = document.getElementById("python").textContent;
  return { losses, tests, python, state: playground.state };
}"""


@pytest.fixture
def train(page):
    """A function that trains in the page, from changes of the state and a number of epochs.

    It returns the losses of the epochs, those of the test, the program, and the state.
    """

    def trained(epochs, **values):
        found = page.evaluate(TRAINED, [values, epochs])
        assert found["state"] | values == found["state"], "the page refused a value"
        return found

    return trained


def run(program):
    """Run a program of the page with gpunn, and return what it defines."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(program, "the page's program", "exec"), names)
    return names
