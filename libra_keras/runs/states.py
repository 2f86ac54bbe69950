"""The saved state of an interrupted run, checked before it continues."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

PATTERN = "step-{}.weights.h5"  # the weights and the optimizer after so many batches
OF_WEIGHTS = ("batches", "weights", "updates", "metrics")
OF_RUN = (*OF_WEIGHTS, "epoch", "step", "seconds", "tables", "has_candidate", "parts")


def check_state(state: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises a `ValueError` unless a state has what is needed, and all known entries have the right
    type."""
    if missing := [name for name in needed if name not in state]:
        raise ValueError(f"it has no {missing[0]!r}")
    for name, (is_right, expected) in _EXPECTED.items():
        if name in state and not is_right(state[name]):
            raise ValueError(f"{name!r} must be {expected}. Received: {state[name]!r:.80}")


def check_like(found: Any, own: Any, name: str) -> None:
    """Raises a `ValueError` unless the entries that a part's state shares with its present one have
    the same types; what is `None` in either is not known yet."""
    if own is None or found is None:
        return
    kind = list if isinstance(own, tuple) else type(own)  # as JSON gives it back
    is_right = _is_number(found) if _is_number(own) else isinstance(found, kind)
    if not is_right:
        raise ValueError(f"{name} must be like {own!r:.80}. Received: {found!r:.80}")
    for key, value in own.items() if isinstance(own, dict) else ():
        if key in found:  # files that are noted again, say, need not be
            check_like(found[key], value, f"{name}.{key}")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value):
    return type(value) is int and 0 <= value < 2**63


def _is_name(value):
    return isinstance(value, str) and re.fullmatch(PATTERN.format(r"\d+"), value) is not None


def _are_sizes(value):
    return isinstance(value, dict) and all(map(_is_count, value.values()))


_COUNT = _is_count, "a whole number of at least 0"
_EXPECTED = {
    **dict.fromkeys(("batches", "updates", "epoch", "epochs", "step"), _COUNT),
    "weights": (_is_name, f"the name of a file such as {PATTERN.format(500)}"),
    "metrics": (lambda value: isinstance(value, list), "a list"),
    "seconds": (lambda value: _is_number(value) and 0 <= value < math.inf, "a number"),
    "tables": (_are_sizes, "sizes of files by their names"),
    "has_candidate": (lambda value: isinstance(value, bool), "true or false"),
    "parts": (lambda value: isinstance(value, dict), "an object"),
}
