"""Entries of a tensor at indices that all lie in it, in as few operations as the backend has.

`keras.ops.take` and `take_along_axis` also read from the end, and broadcast: on TensorFlow ten to
fifty operations where one is enough.
"""

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor


def take(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Takes slices of `x` along an axis.

    Args:
        x: tensor of any shape.
        indices: int tensor of any shape, in 0..n-1 along the axis.
        axis: int.

    Returns:
        Tensor of the shape of `x`, with that of `indices` in place of the axis.

    Raises:
        ValueError: if `indices` holds no integers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.gathering import take
    >>> x = ops.convert_to_tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> ops.convert_to_numpy(take(x, [2, 0], axis=1)).tolist()
    [[3.0, 1.0], [6.0, 4.0]]
    """
    check_arguments({"indices int": indices})
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, indices, axis=axis)
    x, indices = ops.convert_to_tensor(x), ops.convert_to_tensor(indices)
    if x.shape[axis] == 0:  # then there are no indices either, and JAX would return `x` itself
        shape = ops.shape(x)
        return ops.reshape(x, (*shape[:axis], *ops.shape(indices), *shape[axis:][1:]))
    return ops.take(x, indices, axis=axis)


def take_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Takes rows of each image of a batch.

    Args:
        x: tensor `(B, N, ...)`.
        indices: int tensor `(B, K)` in 0..N-1.

    Returns:
        Tensor `(B, K, ...)`.

    Raises:
        ValueError: if an argument has another shape, or `indices` holds no integers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.gathering import take_rows
    >>> x = ops.convert_to_tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> ops.convert_to_numpy(take_rows(x, [[2, 2], [0, 1]])).tolist()
    [[3.0, 3.0], [4.0, 5.0]]
    """
    check_arguments({"indices (B, K) int": indices})
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, indices, batch_dims=1)
    x, indices = ops.convert_to_tensor(x), ops.convert_to_tensor(indices)
    more = (1,) * (len(x.shape) - 2)
    return ops.take_along_axis(x, ops.reshape(indices, (*ops.shape(indices), *more)), axis=1)


def add_rows(x: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Adds rows to those of `x`; several may go to the same one.

    Args:
        x: float tensor `(N, C)`.
        indices: int tensor `(K,)` in 0..N-1.
        rows: tensor `(K, C)` of the type of `x`.

    Returns:
        Tensor `(N, C)`.

    Raises:
        ValueError: if an argument has another shape, or `indices` holds no integers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.gathering import add_rows
    >>> added = add_rows(ops.zeros((3, 1)), [2, 0, 2], ops.convert_to_tensor([[1.0], [5.0], [2.0]]))
    >>> ops.convert_to_numpy(added)[:, 0].tolist()
    [5.0, 0.0, 3.0]
    """
    check_arguments({"x (N, C)": x, "indices (K,) int": indices, "rows (K, C)": rows})
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return x + tf.math.unsorted_segment_sum(rows, indices, tf.shape(x)[0])
    indices = ops.convert_to_tensor(indices)
    return ops.scatter_update(x, indices[:, None], rows, reduction="add")
