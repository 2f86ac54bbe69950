"""Numbers as the files of others have them: as text."""

import math

LARGEST = 2**31  # of no image a side, and of no box a corner


def number(text: str) -> float | None:
    """Returns a number that pixels may have, or `None`."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) < LARGEST else None


def finite(text: str | None, name: str) -> float:
    """Returns a number, or raises a `ValueError` that says what `name` is instead."""
    if text is None:
        raise ValueError(f"it has no {name}")
    value = number(text)
    if value is None:
        raise ValueError(f"its {name} is {text!r:.80}")
    return value


def pixels(text: str | None, name: str) -> int:
    """Returns a side of an image, 0 if none is written."""
    value = finite(text, name) if text else 0
    if value != int(value) or value < 0:
        raise ValueError(f"its {name} is {text!r:.80}, not a number of pixels")
    return int(value)
