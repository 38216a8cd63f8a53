"""Source trees without symbolic links work: an unpacked sdist, and a checkout on Windows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn as gn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LINKS = ("backends", "benchmarks")

CODE = """
import gpunn as gn, gpunn.backends, gpunn.benchmarks, numpy as np
net = gn.nn.Sequential(gn.nn.Linear(2, 3, "relu"), gn.nn.Linear(3, 2))
gn.Trainer(net).fit(np.zeros((4, 2)), np.zeros(4, int), epochs=1, progress=False)
from gpunn.fingerprint.reading import is_library
assert is_library(gpunn.backends.__file__) and is_library(gpunn.nn.__file__)
assert not is_library("gpunn2/mine.py") and not is_library("backends2/mine.py")
print(gpunn.__file__, gpunn.backends.__file__, gpunn.benchmarks.__file__, sep="\\n")
"""


@pytest.mark.parametrize("link", ["absent", "a text file"])
def test_a_tree_without_links_imports_its_own_folders(link, tmp_path):
    def ignored(folder, names):
        return {name for name in names if (Path(folder) / name).is_symlink()} | {"__pycache__"}

    for part in ("gpunn", *LINKS):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    if link != "absent":
        for name in LINKS:  # what Git writes where core.symlinks is false
            (tmp_path / "gpunn" / name).write_text(f"../{name}")
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in done.stdout.split("\n")[:3])


def test_the_version_has_one_place_and_one_copy():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    recipe = (ROOT / ".conda" / "recipe.yaml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert f"\nversion: {gn.__version__}\n" in citation
    assert f'version: "{gn.__version__}"' in recipe


def test_the_recipe_needs_what_the_project_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / ".conda" / "recipe.yaml").read_text(encoding="utf-8")
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    found = {line.strip("- ").replace(" ", "") for line in run.splitlines()}
    assert found == {f"python{project['requires-python']}", *project["dependencies"]}


def test_placeholders_are_listed_for_the_owner():
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("### Placeholders")[2]
    for name in ("SECURITY.md", ".conda/recipe.yaml", "CITATION.cff"):
        for word in re.findall(r"OWNER-[A-Z0-9-]+", (ROOT / name).read_text(encoding="utf-8")):
            assert f"`{word}`" in listed, (name, word)


def test_the_hosted_tests_run_the_command_of_the_readme():
    command = next(
        line.strip()
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("    pip install") and line.endswith("pytest")
    )
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert f"run: {command}\n" in workflow
    assert "--require-gpu" not in workflow
