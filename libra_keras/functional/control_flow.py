"""Graphs for runtimes that lack branches, or have operations of their own for detection."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from libra_keras.typing import Tensor


class Operations(NamedTuple):
    """Operations of a runtime that replace loops; `None` where it has none.

    Attributes:
        suppress: function of `boxes` `(B, N, 4)`, best first, `groups` int32 `(B, N)` or `None`,
            `valid` bool `(B, N)`, `iou_threshold`, `max_output` and `num_groups`, as `nms.nms` has
            them. It returns bool `(B, N)`, which boxes are kept: in each group at least the first
            `max_output` of those that are.
        pool: function of the L `features` `(B, H_l, W_l, C)`, `boxes` `(B, N, 4)`, `levels` int32
            `(B, N)`, `strides`, `size`, `sampling_ratio`, `aligned` and `max_sampling_ratio`, as
            `roi_align.find_taps` has them. It returns float32 `(B, N, S, S, C)`.

    Example:

    >>> from libra_keras.functional.control_flow import Operations
    >>> Operations().pool is None
    True
    """

    suppress: Callable[..., Tensor] | None = None
    pool: Callable[..., Tensor] | None = None


_active: list[Operations] = []


@contextlib.contextmanager
def straight_line(operations: Operations | None = None) -> Iterator[None]:
    """Within this context graphs have no branches, and operations of a runtime replace loops.

    Branches only choose between a fast way and one that always fits, so the numbers stay the same.
    Like `native.portable`, within which it belongs, it works while a graph is traced, and for the
    whole process.

    Args:
        operations: `Operations` of the runtime that the graph is for. Defaults to none.

    Example:

    >>> from libra_keras.functional import control_flow, native
    >>> from libra_keras.functional.nms import nms
    >>> everything = control_flow.Operations(suppress=lambda boxes, groups, valid, *_: valid)
    >>> boxes = [[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]]]
    >>> for operations in (None, everything):
    ...     with native.portable(), control_flow.straight_line(operations):
    ...         _, kept = nms(boxes, [[0.9, 0.8]], iou_threshold=0.5, max_output=2)
    ...     print(kept.numpy().tolist() if hasattr(kept, "numpy") else kept.tolist())
    [[True, False]]
    [[True, True]]
    """
    _active.append(operations or Operations())
    try:
        yield
    finally:
        _active.pop()


def active() -> Operations | None:
    """Returns the operations of the `straight_line` around, or `None` outside of one.

    Example:

    >>> from libra_keras.functional import control_flow
    >>> control_flow.active() is None
    True
    """
    return _active[-1] if _active else None


def own_operations() -> Operations:
    """Returns those of the runtime that a graph is made for; none of them outside `straight_line`.

    Example:

    >>> from libra_keras.functional import control_flow
    >>> control_flow.own_operations().suppress is None
    True
    """
    return active() or Operations()
