"""Losses of boxes: smooth L1, quadratic for small errors, and balanced L1, steeper for them."""

import math
from typing import Any

import keras
from keras import ops

from libra_keras.losses.same_shape import check_same_shape
from libra_keras.ranges import NOT_NEGATIVE, POSITIVE
from libra_keras.typing import Tensor

LARGEST_RATIO, LARGEST = 80.0, 1e37
_FORMS = ("reference", "continuous")


@keras.saving.register_keras_serializable(package="libra_keras")
def smooth_l1(y_true: Tensor, y_pred: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 loss of every element.

    With `x = |y_pred - y_true|`: `x ** 2 / (2 * beta)` where `x < beta`, `x - beta / 2`
    elsewhere; `beta = 0` is plain L1. Computed in float32 for all inputs. Where an element should
    not count, replace the *inputs* (equal values give loss and gradient 0): a weight of 0 on the
    result does not remove an infinite or NaN input.

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
    _check_beta(beta)
    error = _error(y_true, y_pred)
    if beta == 0:  # the quadratic part is empty, and dividing by 0 would spoil the gradient
        return error
    # Both branches are evaluated: without the minimum, infinity times 0 would make gradients NaN.
    small = ops.minimum(error, beta)
    return ops.where(error < beta, small * small * (0.5 / beta), error - 0.5 * beta)


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

    def __init__(
        self,
        beta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "smooth_l1",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_beta(beta)
        self.beta = beta

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.sum(smooth_l1(y_true, y_pred, self.beta), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="libra_keras")
def balanced_l1(
    y_true: Tensor,
    y_pred: Tensor,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    form: str = "reference",
) -> Tensor:
    """Balanced L1 loss of every element.

    With `x = |y_pred - y_true|` and `b = exp(gamma / alpha) - 1`, the loss is

        alpha / b * (b * x + 1) * log(b * x / beta + 1) - alpha * x    where x < beta
        gamma * x + gamma / b - alpha * beta                           elsewhere

    so that, for `beta = 1`, its slope is `alpha * log(b * x + 1)`, which reaches `gamma` at
    `x = 1` and stays there. This is the form `"reference"`. With `beta` other than 1 its slope
    has a kink of `alpha * (1 - beta) / beta` at 0 and a jump at `beta`. The form `"continuous"`
    replaces `b` with `b / beta`, so that the slope is `alpha * log(b * x / beta + 1)`
    for every `beta`. Both are the same at `beta = 1`.

    Computed in float32 for all inputs. Where an element should not count, replace the *inputs*
    (equal values in both give loss and gradient 0): a weight of 0 on the result does not remove an
    infinite or NaN input.

    Args:
        y_true: tensor of any shape.
        y_pred: tensor of the same shape.
        alpha: float > 0; the smaller it is, the larger the slope of small errors.
        gamma: float > 0, the slope of large errors.
        beta: float > 0, the error from which on the loss is linear.
        form: `"reference"` or `"continuous"`.

    Returns:
        float32 tensor of the shape of the inputs, >= 0. Its gradient at equal inputs is 0.

    Raises:
        ValueError: if a parameter is not positive, `form` is unknown, `gamma / alpha` is so large
            (80) that numbers overflow, or the shapes differ.

    Example:

    >>> from keras import ops
    >>> from libra_keras.losses import balanced_l1
    >>> loss = balanced_l1([0.0, 0.0, 0.0], [0.0, 0.5, -2.0])
    >>> [round(float(value), 4) for value in loss]
    [0.0, 0.4006, 2.5786]

    Source: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 3.3, equations 7-9.
    """
    _check_parameters(alpha, gamma, beta, form)
    error = _error(y_true, y_pred)
    b = math.expm1(gamma / alpha) / (1.0 if form == "reference" else beta)
    steepness = b / beta if form == "reference" else b
    # Both branches are evaluated: without the minimum, infinity times 0 would make gradients NaN.
    small = ops.minimum(error, beta)
    curved = alpha / b * (b * small + 1.0) * ops.log1p(steepness * small) - alpha * small
    return ops.where(error < beta, curved, gamma * error + (gamma / b - alpha * beta))


@keras.saving.register_keras_serializable(package="libra_keras")
class BalancedL1Loss(keras.losses.Loss):
    """Balanced L1 loss of boxes: the four terms of a box are added.

    See `balanced_l1` for the formula. `call` returns one value per box; calling the object
    itself also applies `sample_weight` and `reduction`, as in every Keras loss. Boxes that do
    not count need finite inputs: mask these, not only the loss.

    Args:
        alpha: float > 0; the smaller it is, the larger the slope of small errors.
        gamma: float > 0, the slope of large errors.
        beta: float > 0, the error from which on the loss is linear. The paper's RetinaNet
            uses 0.11.
        form: `"reference"`, the published code, or `"continuous"`, whose slope has no jump when
            `beta` is not 1.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.
        dtype: as in `keras.losses.Loss`; the terms are float32 in any case.

    Call arguments:
        y_true: tensor `(..., 4)`, encoded targets (or any last axis to be summed).
        y_pred: tensor `(..., 4)`, encoded predictions.

    Returns:
        `call`: float32 tensor `(...)`. `__call__`: that, weighted and reduced.

    Raises:
        ValueError: as `balanced_l1` does.

    Example:

    >>> import numpy as np
    >>> from libra_keras.losses import BalancedL1Loss
    >>> loss = BalancedL1Loss(reduction="sum")
    >>> round(float(loss(np.zeros((1, 4)), np.array([[0.5, 0.0, 0.0, 2.0]]))), 4)
    2.9792

    Source: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 3.3.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        form: str = "reference",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "balanced_l1",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_parameters(alpha, gamma, beta, form)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.form = form

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        terms = balanced_l1(y_true, y_pred, self.alpha, self.gamma, self.beta, self.form)
        return ops.sum(terms, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "beta": self.beta,
            "form": self.form,
            "dtype": self.dtype,
        }


def _error(y_true, y_pred):
    """The absolute difference in float32, with a slope of 0 at 0."""
    check_same_shape(y_true, y_pred)
    difference = ops.cast(y_pred, "float32") - ops.cast(y_true, "float32")
    # Not `abs`: on JAX its slope at 0 is 1, and a box that is right would be pushed away.
    return difference * ops.stop_gradient(ops.sign(difference))


def _check_beta(beta):
    NOT_NEGATIVE.check("`beta`", beta)


def _check_parameters(alpha, gamma, beta, form):
    for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
        POSITIVE.check(f"`{name}`", value)
    # `b` and its multiples are float32.
    if gamma / alpha > LARGEST_RATIO or math.expm1(gamma / alpha) / min(beta, 1.0) > LARGEST:
        raise ValueError(
            f"`gamma / alpha` must be at most {LARGEST_RATIO:g}, and less if `beta` is tiny. "
            f"Received: alpha={alpha}, gamma={gamma}, beta={beta}"
        )
    if form not in _FORMS:
        raise ValueError(f"`form` must be one of {_FORMS}. Received: form={form!r}")
