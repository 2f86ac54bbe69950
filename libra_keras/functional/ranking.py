"""The best of each row, in one order on every backend."""

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor


def top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds the `k` largest entries of each row; equal ones come by their index.

    The same samples and proposals on every backend need one rule for ties. `keras.ops.top_k` has
    this rule on TensorFlow and JAX. On PyTorch it has none, so a stable sort takes its place.

    Args:
        x: tensor `(..., N)` of numbers without NaN.
        k: int in 0..N.

    Returns:
        Tuple of the values `(..., k)`, largest first, and their int32 indices `(..., k)`.

    Raises:
        ValueError: if `x` has no axis, or holds no numbers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.ranking import top_k
    >>> values, indices = top_k(ops.convert_to_tensor([1.0, 5.0, 1.0, 5.0]), 3)
    >>> ops.convert_to_numpy(values).tolist(), ops.convert_to_numpy(indices).tolist()
    ([5.0, 5.0, 1.0], [1, 3, 0])
    """
    check_arguments({"x (..., N)": x})
    if keras.backend.backend() != "torch":
        values, indices = ops.top_k(x, k)
        return values, ops.cast(indices, "int32")
    x = ops.convert_to_tensor(x)
    indices = ops.argsort(-x, axis=-1)[..., :k]  # stable
    return ops.take_along_axis(x, indices, axis=-1), indices
