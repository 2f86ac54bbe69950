"""Bring a feature map to the size of another: nearest neighbours up, maxima of windows down.

Sizes may be unknown while a `tf.function` is traced: a condition then picks the cheap way when it
runs. XLA compiles both ways, and refuses the one that does not fit; so inside a function that is
compiled by XLA as a whole, sizes must be known or have whole ratios.
"""

import operator
from collections.abc import Sequence

import numpy as np
from keras import ops

from libra_keras.functional import control_flow, native, native_gradients
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import take
from libra_keras.typing import Tensor


def resize_nearest(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Resizes `(B, H, W, C)` by nearest neighbours, at any size.

    Output position `i` copies input position `floor(i * input / output)`. This is the
    asymmetric rule of PyTorch's `"nearest"`; the half-pixel rule of `keras.ops.image.resize`
    takes other pixels wherever one size is not a multiple of the other. Each axis is resized
    cheaply where possible: by repetition when it grows by a whole factor, by a strided slice when
    it shrinks by one. Only other ratios use a gather, whose gradient is slow.

    Args:
        x: tensor `(B, H, W, C)`; H and W may be unknown inside a `tf.function`.
        size: pair (height, width) of positive ints or int32 scalar tensors.

    Returns:
        Tensor `(B, height, width, C)` of the dtype of `x`.

    Raises:
        ValueError: if `x` does not have four axes, or `size` is not a pair of positive lengths.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.resize import resize_nearest
    >>> row = ops.reshape(ops.convert_to_tensor([10.0, 20.0]), (1, 1, 2, 1))
    >>> ops.convert_to_numpy(resize_nearest(row, (1, 5)))[0, 0, :, 0].tolist()
    [10.0, 10.0, 10.0, 20.0, 20.0]

    Source: `torch.nn.functional.interpolate(mode="nearest")`, as the reference's pyramids use
    it; here in integers, so that no size is affected by rounding.
    """
    check_arguments({"x (B, H, W, C) any": x})
    return _along_both(_stretch, x, size, axes=(2, 1))  # width first: repetition copies less


def adaptive_max_pool(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Pools `(B, H, W, C)` to a given size with maxima, at any size.

    Along an axis, output position `i` is the maximum of the input positions from
    `floor(i * input / output)` up to, not including, `ceil((i + 1) * input / output)`, so
    windows overlap and differ in length when the ratio is not whole. Rows are pooled first, then
    columns; whole ratios are reduced in place, only other ratios need a gather.

    The gradient of an output goes to the maximum of its window. Equal maxima share it: first the
    equal rows of each column in equal parts, then the equal columns. (PyTorch gives all of it to
    one of them.) The rule is the same for every ratio and backend, and for known and unknown sizes.

    Args:
        x: floating tensor `(B, H, W, C)`; H and W may be unknown inside a `tf.function`.
        size: pair (height, width) of positive ints or int32 scalar tensors.

    Returns:
        Tensor `(B, height, width, C)` of the dtype of `x`.

    Raises:
        ValueError: if `x` does not have four axes or does not hold floats, or `size` is not a pair
            of positive lengths.

    Example: three outputs of five inputs see positions 0-1, 1-3 and 3-4.

    >>> from keras import ops
    >>> from libra_keras.functional.resize import adaptive_max_pool
    >>> row = ops.reshape(ops.convert_to_tensor([5.0, 1.0, 2.0, 3.0, 9.0]), (1, 1, 5, 1))
    >>> ops.convert_to_numpy(adaptive_max_pool(row, (1, 3)))[0, 0, :, 0].tolist()
    [5.0, 3.0, 9.0]

    Source: the windows of `torch.nn.functional.adaptive_max_pool2d`.
    """
    check_arguments({"x (B, H, W, C) float": x})
    return _along_both(_pool, x, size, axes=(1, 2))


def _along_both(function, x, size, axes):
    x = ops.convert_to_tensor(x)
    if len(size) != 2:
        raise ValueError(f"`size` must be a pair (height, width). Received: size={size}")
    lengths = [_length(n) for n in size]
    if any(isinstance(n, int) and n < 1 for n in lengths):
        raise ValueError(f"`size` must be positive. Received: size={tuple(lengths)}")
    for axis in axes:
        x = function(x, axis, _length(ops.shape(x)[axis]), lengths[axis - 1])
    return x


def _length(value):
    """Returns a known length as an int, one that only the running graph knows as it is."""
    try:
        return operator.index(value)
    except TypeError:
        return value


def _either(condition, fast, general):
    """The result of `fast` where the condition holds when the graph runs, else of `general`."""
    return general() if control_flow.active() else ops.cond(condition, fast, general)


def _stretch(x, axis, old, new):
    if not (isinstance(old, int) and isinstance(new, int)):
        return _either(
            ops.equal(new % old, 0),
            lambda: ops.repeat(x, new // old, axis=axis),
            lambda: take(x, ops.arange(new, dtype="int32") * old // new, axis=axis),
        )
    if new == old:
        return x
    if new % old == 0:
        return ops.repeat(x, new // old, axis=axis)
    if old % new == 0:
        step = slice(None, None, old // new)
        return x[:, step] if axis == 1 else x[:, :, step]
    return take(x, np.arange(new, dtype="int32") * old // new, axis=axis)


def _pool(x, axis, old, new):
    if not (isinstance(old, int) and isinstance(new, int)):
        return _either(
            ops.equal(old % new, 0),
            lambda: _pool_equal_windows(x, axis, old // new, new),
            # A window spans at most this many positions, whatever the remainder is.
            lambda: _pool_any_windows(x, axis, old, new, widest=old // new + 2),
        )
    if new == old:
        return x
    if old % new == 0:
        return _pool_equal_windows(x, axis, old // new, new)
    starts = np.arange(new) * old // new
    ends = -(-np.arange(1, new + 1) * old // new)
    return _pool_any_windows(x, axis, old, new, widest=int((ends - starts).max()))


def _pool_equal_windows(x, axis, width, new):
    shape = list(ops.shape(x))
    windows = ops.reshape(x, (*shape[:axis], new, width, *shape[axis + 1 :]))
    return _max(windows, axis + 1)


def _max(windows, axis):
    if windows.shape[0] == 0:  # Keras finds no largest value there, although none is asked for
        return take(windows, 0, axis=axis)
    return (
        native_gradients.largest(windows, axis) if native.enabled() else ops.max(windows, axis=axis)
    )


def _pool_any_windows(x, axis, old, new, widest):
    """Gathers windows of one common length, and covers what sticks out of the shorter ones."""
    position = ops.arange(new, dtype="int32")
    starts = position * old // new
    ends = ((position + 1) * old + new - 1) // new
    index = starts[:, None] + ops.arange(widest, dtype="int32")
    inside = ops.reshape(index < ends[:, None], (new, widest) + (1,) * (3 - axis))
    windows = take(x, ops.minimum(index, old - 1), axis=axis)
    nothing = ops.cast(float("-inf"), x.dtype)
    return _max(ops.where(inside, windows, nothing), axis + 1)
