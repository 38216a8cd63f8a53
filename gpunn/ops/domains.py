"""The numbers that losses accept, and the check of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gpunn.backends import backend_of
from gpunn.errors import DataError
from gpunn.ops.reductions import all_true
from gpunn.typing import Array


class Domain(NamedTuple):
    """The numbers that a loss accepts: in words, as a test, and a remedy for other numbers.

    `unless` is the flag of the loss with which it accepts any numbers; "" if it has none.
    """

    words: str
    holds: Callable[[Array], Array]
    remedy: str
    unless: str = ""


ZERO_TO_ONE = Domain(
    "numbers from 0 to 1",
    lambda t: (t >= 0) & (t <= 1),
    "name the classes 0 and 1; use half_squared_error for other numbers",
)
COUNTS = Domain(
    "numbers of at least 0", lambda t: t >= 0, "use half_squared_error for other numbers"
)
NO_LOGARITHMS = Domain(
    COUNTS.words, COUNTS.holds, "pass log_target=True for logarithms of probabilities", "log_target"
)
SIGNS = Domain("-1 and +1", lambda t: abs(t) == 1, "use 2 * y - 1 for classes 0 and 1")
PROBABILITIES = Domain(
    "probabilities from 0 to 1",
    lambda p: ~((p < 0) | (p > 1)),  # NaN passes: the loss itself reports it
    "end the network in a sigmoid, or use binary_cross_entropy_with_logits",
)
VARIANCES = Domain(
    "variances of at least 0",
    lambda v: ~(v < 0),
    "pass softplus(s) for any number s, or leave var out and predict s",
)


def check_domain(what: str, values: Array, domain: Domain | None) -> None:
    """Check that a loss accepts numbers. On a GPU this waits for the device.

    Args:
        what: the numbers, for the message.
        values: the numbers.
        domain: the numbers that the loss accepts; None for any.

    Raises:
        DataError: the loss does not accept one of them.
    """
    if domain is None or all_true(backend_of(values), domain.holds(values)):
        return
    wrong = values[~domain.holds(values)]
    raise DataError(
        f"got {float(wrong.reshape(-1)[0])} among the {what}; expected {domain.words}: "
        f"{domain.remedy}"
    )
