"""Ranges of numbers that options and arguments take, stated in one form and checked in one
place."""

import dataclasses
import math
from numbers import Integral, Real
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, which belong to it unless `ends` has `(` or `)` there, and
    words that stand for a number. What is infinite or NaN is in no range."""

    least: float
    most: float = math.inf
    ends: str = "[]"
    is_whole: bool = False
    words: tuple[str, ...] = ()

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self.words
        above = value > self.least or (value == self.least and self.ends[0] == "[")
        below = value < self.most or (value == self.most < math.inf and self.ends[1] == "]")
        return above and below

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        words = [f" or {word}" for word in self.words]
        return f"{kind} {self.limits}{''.join(words)}"

    @property
    def limits(self) -> str:
        """The limits alone, such as `from 0 to 1`."""
        if self.least == -math.inf:
            return "that is finite"
        least, most = (
            str(x) if isinstance(x, int) else f"{x:.16g}" for x in (self.least, self.most)
        )
        if self.most == math.inf:
            return f"above {least}" if self.ends[0] == "(" else f"of at least {least}"
        if self.ends == "[]":
            return f"from {least} to {most}"
        low = f"above {least}" if self.ends[0] == "(" else f"of at least {least}"
        return f"{low} and {'below' if self.ends[1] == ')' else 'at most'} {most}"

    def read(self, text: str) -> float | str:
        """Reads text of a command line, or raises a `ValueError`."""
        if text in self.words:
            return text
        try:
            value = int(text) if self.is_whole else float(text)
        except ValueError:
            value = math.nan
        if value not in self:
            raise ValueError(f"must be {self}. Received: {text!r:.80}")
        return value

    def check(self, name: str, value: Any) -> Any:
        """Returns a value as Python's own number, or raises an error that calls it by a name: a
        `TypeError` if it is not a number."""
        found = plain(value)
        kinds = (int, float, str) if self.words else (int, float)
        message = f"{name} must be {self}. Received: {value!r:.80}"
        if self.is_whole and isinstance(found, float) and found.is_integer():
            found = int(found)
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise TypeError(message)
        if (self.is_whole and isinstance(found, float)) or found not in self:
            raise ValueError(message)
        return found


POSITIVE, NOT_NEGATIVE, SHARE = Range(0, ends="(]"), Range(0), Range(0, 1)
FINITE = Range(-math.inf, ends="(]")


def whole(least: int, most: float = 2**31 - 1, words: tuple[str, ...] = ()) -> Range:
    """Returns a range of whole numbers."""
    return Range(least, most, is_whole=True, words=words)


SEED = whole(-(2**63), 2**63 - 1)


def plain(value: Any) -> Any:
    """Returns numbers of NumPy and other libraries as Python's own, anything else as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
