"""Graphs for runtimes that lack branches or loops: their plain twins, and what these leave over."""

import contextlib
from collections.abc import Iterator

from libra_keras.typing import Tensor

_active: list["StraightLine"] = []


class StraightLine:
    """What the code of graphs inside `straight_line` reads and reports.

    Attributes:
        rounds: int, or `None` for loops that run until they are done.
        undecided: list of int32 tensors `(L * B,)`, one for each search that was cut after `rounds`
            rounds: how many boxes its last round still changed. All 0: the result is exact.

    Example:

    >>> from libra_keras.functional.control_flow import StraightLine
    >>> StraightLine(rounds=8).undecided
    []
    """

    def __init__(self, rounds: int | None = None) -> None:
        self.rounds = rounds
        self.undecided: list[Tensor] = []


@contextlib.contextmanager
def straight_line(rounds: int | None = None) -> Iterator[StraightLine]:
    """Within this context graphs have no branches and, with `rounds`, no loops.

    Branches only choose between a fast way and one that always fits, so the numbers stay the same.
    Loops of `nms` end when nothing changes; with `rounds` they are written out that many times,
    and what was still changing at the end is reported. Like `native.portable`, within which it
    belongs, it works while a graph is traced, and for the whole process.

    Args:
        rounds: positive int, how many times a loop is written out, or `None`.

    Yields:
        `StraightLine`, which collects the reports.

    Raises:
        ValueError: if `rounds` is not positive.

    Example: A suppresses B, which then cannot suppress C. One round does not see that yet.

    >>> from keras import ops
    >>> from libra_keras.functional import native
    >>> from libra_keras.functional.control_flow import straight_line
    >>> from libra_keras.functional.nms import nms
    >>> boxes = [[[0.0, 0.0, 9.0, 9.0], [0.0, 3.0, 9.0, 12.0], [0.0, 6.0, 9.0, 15.0]]]
    >>> for rounds in (1, 2, 3):
    ...     with native.portable(), straight_line(rounds) as line:
    ...         _, kept = nms(boxes, [[0.9, 0.8, 0.7]], iou_threshold=0.4, max_output=3)
    ...     print(int(ops.sum(kept)), ops.convert_to_numpy(line.undecided[0]).tolist())
    1 [2]
    2 [1]
    2 [0]
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"`rounds` must be positive or None. Received: rounds={rounds}")
    _active.append(StraightLine(rounds))
    try:
        yield _active[-1]
    finally:
        _active.pop()


def active() -> StraightLine | None:
    """Returns the `StraightLine` of the context around, or `None`.

    Example:

    >>> from libra_keras.functional import control_flow
    >>> control_flow.active() is None
    True
    """
    return _active[-1] if _active else None


def may_loop() -> bool:
    """Whether graphs may have loops here: not inside `straight_line(rounds)`.

    Example:

    >>> from libra_keras.functional import control_flow
    >>> with control_flow.straight_line(rounds=8):
    ...     control_flow.may_loop()
    False
    """
    line = active()
    return line is None or line.rounds is None
