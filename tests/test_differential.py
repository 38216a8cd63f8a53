"""The first seeds of each kind of random program; `python -m tests.differential` runs more."""

from __future__ import annotations

import pytest

from tests.differential import KINDS, estimators, fits, graphs

CASES = [(name, device) for name, (_, devices) in KINDS.items() for device in devices]
SEEDS = 24


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("name", "device"), CASES)
def test_two_ways_agree(name, device, seed):
    KINDS[name][0](seed, device)


def faults(check, seeds):
    """The number of seeds that find a fault."""
    found = 0
    for seed in range(seeds):
        try:
            check(seed)
        except (AssertionError, KeyError):
            found += 1
    return found


def test_a_wrong_gradient_is_found(monkeypatch):
    ours, numpys = graphs.UNARY["sin"]
    monkeypatch.setitem(graphs.UNARY, "sin", (lambda x: ours(x * 1.001), numpys))
    assert faults(graphs.check, 60)


def test_a_fit_that_is_recorded_with_another_seed_is_found(monkeypatch):
    real = fits.trained

    def wrong(seed, device, capture, alone=False):
        return real(seed + (not capture), device, capture, alone)

    monkeypatch.setattr(fits, "trained", wrong)
    assert faults(fits.check, 3) == 3


def test_an_estimator_with_another_alpha_is_found(monkeypatch):
    real = estimators.act

    def act(model, name, task, given):
        if name == "fit" and type(model).__module__.startswith("gpunn"):
            model.set_params(alpha=model.alpha + 1e-3)
        return real(model, name, task, given)

    monkeypatch.setattr(estimators, "act", act)
    assert faults(estimators.check, 20)
