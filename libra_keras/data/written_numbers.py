"""Numbers as the files of others have them: as text."""

import math


def finite(text: str | None, name: str) -> float:
    """Returns a number, or raises a `ValueError` that says what `name` is instead."""
    if text is None:
        raise ValueError(f"it has no {name}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"its {name} is {text!r:.80}")
    return value


def pixels(text: str | None, name: str) -> int:
    """Returns a side of an image, 0 if none is written."""
    value = finite(text, name) if text else 0
    if value != int(value) or not 0 <= value < 2**31:
        raise ValueError(f"its {name} is {text!r:.80}, no number of pixels")
    return int(value)
