"""Groups of parameters with rates and decays of their own, as PyTorch writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpunn.arguments import in_range
from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError
from gpunn.optim.schedules import Schedule

OWN = {"lr": "lr_factor", "weight_decay": "decay_factor"}
"""What a group may have of its own, and the attribute of a parameter that says it."""


def ungrouped(
    given: Iterable[Any], lr: float, weight_decay: float | Schedule
) -> tuple[list[Tensor], float | Schedule]:
    """Return the parameters of all groups, after writing the factors of each group to them.

    A group is {"params": parameters, "lr": ..., "weight_decay": ...}, with a rate or a decay of its
    own or both. What is not a group is passed through.

    Args:
        given: groups, or parameters, or both.
        lr: the learning rate of the optimizer.
        weight_decay: its weight decay. If it is 0, it becomes the largest one of a group.

    Returns:
        The parameters, and the weight decay of the optimizer.

    Raises:
        ArgumentError: a group has no "params", or something that no group can have, or is not a
            multiple of the optimizer's number, because that is 0 or a schedule.
    """
    given = list(given)
    if not any(isinstance(each, Mapping) for each in given):
        return given, weight_decay
    groups = [each if isinstance(each, Mapping) else {"params": [each]} for each in given]
    for group in groups:
        _check(group)
    largest = max(group.get("weight_decay", 0.0) for group in groups)
    base: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay or largest}
    found: list[Tensor] = []
    for group in groups:
        own = dict(group)
        if base["weight_decay"] != weight_decay:
            own.setdefault("weight_decay", weight_decay)
        members = own.pop("params")
        members = [members] if isinstance(members, Tensor) else list(members)
        for name, value in own.items():
            _write(members, OWN[name], _ratio(name, value, base[name]))
        found += members
    return found, base["weight_decay"]


def _check(group: Mapping[str, Any]) -> None:
    wrong = sorted(map(str, set(group) - {"params", *OWN}))
    if "params" not in group or wrong:
        raise ArgumentError(
            f"got a group of parameters with {', '.join(map(str, group)) or 'nothing'}; expected "
            '"params" and "lr" or "weight_decay": all groups share the other options, so make one '
            "optimizer for each group that needs more"
        )
    for name in OWN:
        if name in group:
            in_range(name, group[name], 0.0)


def _ratio(name: str, own: float, base: Any) -> float:
    if own == base:
        return 1.0
    if isinstance(base, Schedule) or not base:
        raise ArgumentError(
            f"got a group of parameters with {name}={own} for an optimizer with {name}={base!r}; "
            f"expected a number above 0 there, which the group's is a multiple of: pass {name}= "
            "to the optimizer, or set the factors of the parameters"
        )
    return float(own) / float(base)


def _write(members: Iterable[Any], factor: str, value: float) -> None:
    for tensor in members:
        if not hasattr(tensor, factor):
            raise ArgumentError(
                f"got a group of {type(tensor).__name__}; expected parameters of a module, which "
                "keep their own factors: pass net[0].parameters()"
            )
        setattr(tensor, factor, value)
