"""How the API pages read docstrings: a section "Example:" has programs, as "Examples:" has."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class Examples(Extension):
    """Gives the section of an example the name that Griffe knows."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rename the section of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M
            )
