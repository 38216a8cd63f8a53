"""The program of docs/extending.md runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_write_your_own_runs_from_top_to_bottom(tmp_path):
    text = (ROOT / "docs" / "extending.md").read_text()
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
    (tmp_path / "extending.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "extending.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
