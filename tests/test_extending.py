"""The programs of pages that say so run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpunn.storage.cache import cache_folder

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["extending", "training", "losses"])
def test_a_page_runs_from_top_to_bottom(tmp_path, page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={
            **{"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            "XDG_CACHE_HOME": str(cache_folder().parent),  # of compiled kernels
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
