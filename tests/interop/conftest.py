"""The languages in which exported source is run."""

from __future__ import annotations

import pytest

from tests.sourcecases import RUN


@pytest.fixture(params=sorted(RUN))
def target(request):
    return request.param
