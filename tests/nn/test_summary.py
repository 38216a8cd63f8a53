"""The table of a network, for a terminal."""

from __future__ import annotations

import numpy as np
import pytest

from gpunn import nn

pytestmark = pytest.mark.fast


class Scaled(nn.Module):
    """A module with a parameter of its own and a layer inside."""

    def __init__(self):
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.layer = nn.Linear(4, 3, seed=0)

    def forward(self, x):
        return self.layer(x) * self.scale


def test_every_parameter_is_in_one_row(capsys):
    tied = nn.Linear(3, 3, seed=1)
    net = nn.Sequential(Scaled(), tied, nn.Dropout(0.5), tied)
    net[1].bias.requires_grad = False
    net.summary()
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["0.layer", "0", "1", "2", "3"]
    assert [int(row.split()[-1]) for row in rows] == [15, 3, 12, 0, 0]
    assert last == "30 parameters, 3 of them frozen, 120 bytes of float32 on cpu"
    assert len({len(line) for line in (head, *rows)}) == 1
    assert "own parameters" in net._repr_html_()
