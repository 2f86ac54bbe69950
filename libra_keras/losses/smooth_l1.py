"""Smooth L1: quadratic for small errors, linear for large ones."""

import keras
from keras import ops

from libra_keras.losses.same_shape import check_same_shape


@keras.saving.register_keras_serializable(package="libra_keras")
def smooth_l1(y_true, y_pred, beta=1.0):
    """Smooth L1 loss of every element.

    With `x = |y_pred - y_true|`: `x ** 2 / (2 * beta)` where `x < beta`, `x - beta / 2`
    elsewhere; `beta = 0` is plain L1. Computed in float32 whatever the inputs are. Where an
    element does not count, replace the *inputs* (equal values give loss and gradient 0): a
    weight of 0 on the result does not remove an infinite or NaN input.

    Args:
        y_true: tensor of any shape.
        y_pred: tensor of the same shape.
        beta: float >= 0, the error from which on the loss is linear.

    Returns:
        float32 tensor of the shape of the inputs, >= 0. Its gradient at equal inputs is 0.

    Raises:
        ValueError: if `beta` is negative, or the shapes differ.

    Example:

    >>> from keras import ops
    >>> from libra_keras.losses import smooth_l1
    >>> ops.convert_to_numpy(smooth_l1([0.0, 0.0], [0.5, -2.0])).tolist()
    [0.125, 1.5]

    Source: [Girshick, 2015](https://arxiv.org/abs/1504.08083), equation 3, with the threshold
    `beta` of later code. Differs from Keras' `Huber`, which is `beta` times this.
    """
    _check(beta)
    check_same_shape(y_true, y_pred)
    difference = ops.cast(y_pred, "float32") - ops.cast(y_true, "float32")
    # Not `abs`: on JAX its slope at 0 is 1, and a box that is right would be pushed away.
    error = difference * ops.stop_gradient(ops.sign(difference))
    if beta == 0:  # the quadratic part is empty, and dividing by 0 would spoil the gradient
        return error
    # Both branches are evaluated: without the minimum, infinity times 0 would make gradients NaN.
    small = ops.minimum(error, beta)
    return ops.where(error < beta, small * small * (0.5 / beta), error - 0.5 * beta)


def _check(beta):
    if not beta >= 0:
        raise ValueError(f"`beta` must be 0 or positive. Received: beta={beta}")


@keras.saving.register_keras_serializable(package="libra_keras")
class SmoothL1Loss(keras.losses.Loss):
    """Smooth L1 loss of boxes: the four terms of a box are added.

    See `smooth_l1` for the formula. `call` returns one value per box; calling the object itself
    also applies `sample_weight` and `reduction`, as in every Keras loss. Boxes that do not count
    need finite inputs: mask these, not only the loss.

    Args:
        beta: float >= 0, the error from which on the loss is linear; 0 is plain L1, which the
            reference's region proposal network uses.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.
        dtype: as in `keras.losses.Loss`; the terms are float32 in any case.

    Call arguments:
        y_true: tensor `(..., 4)`, encoded targets (or any last axis to be summed).
        y_pred: tensor `(..., 4)`, encoded predictions.

    Returns:
        `call`: float32 tensor `(...)`. `__call__`: that, weighted and reduced.

    Raises:
        ValueError: if `beta` is negative.

    Example:

    >>> import numpy as np
    >>> from libra_keras.losses import SmoothL1Loss
    >>> loss = SmoothL1Loss(beta=0.0, reduction="sum")
    >>> float(loss(np.zeros((1, 4)), np.array([[0.5, 0.0, -0.25, 2.0]])))
    2.75

    Source: [Girshick, 2015](https://arxiv.org/abs/1504.08083), equation 3.
    """

    def __init__(self, beta=1.0, reduction="sum_over_batch_size", name="smooth_l1", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check(beta)
        self.beta = beta

    def call(self, y_true, y_pred):
        return ops.sum(smooth_l1(y_true, y_pred, self.beta), axis=-1)

    def get_config(self):
        return {**super().get_config(), "beta": self.beta, "dtype": self.dtype}
