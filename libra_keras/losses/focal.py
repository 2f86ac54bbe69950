"""Focal loss: cross-entropy in which the many easy background boxes hardly count."""

from typing import Any

import keras
from keras import ops

from libra_keras.losses.same_shape import check_same_shape
from libra_keras.ranges import NOT_NEGATIVE, SHARE
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
def focal(y_true: Tensor, y_pred: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss of every logit.

    With p the probability that a logit gives to the truth, the loss is
    `-(1 - p) ** gamma * log(p)`, times `alpha` where the class is present and `1 - alpha` where
    it is not. `gamma = 0` and `alpha = 0.5` is half of binary cross-entropy. Computed in float32
    for all inputs, and from logarithms only: values and gradients are finite for all finite logits.

    Args:
        y_true: bool or number tensor of any shape; true or not 0 where the class is present.
        y_pred: float tensor of the same shape, logits.
        alpha: float in 0..1, weight of classes that are present.
        gamma: float >= 0; how strongly logits that are nearly right are discounted.

    Returns:
        float32 tensor of the shape of the inputs, >= 0.

    Raises:
        ValueError: if `alpha` or `gamma` is out of range, or the shapes differ.

    Example:

    >>> from keras import ops
    >>> from libra_keras.losses import focal
    >>> loss = focal([True, False, False], [0.0, 0.0, -4.0])
    >>> [round(float(value), 6) for value in loss]
    [0.043322, 0.129965, 4e-06]

    Source: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), equation 5.
    """
    _check(alpha, gamma)
    check_same_shape(y_true, y_pred)
    is_present = ops.cast(y_true, "bool")
    logits = ops.cast(y_pred, "float32")
    evidence = ops.where(is_present, logits, -logits)  # p = sigmoid(evidence)
    cross_entropy = ops.softplus(-evidence)  # -log(p)
    # A power of p itself has no finite slope at 0 if gamma < 1.
    doubt = ops.exp(-gamma * ops.softplus(evidence))  # (1 - p) ** gamma
    return ops.where(is_present, alpha, 1.0 - alpha) * doubt * cross_entropy


def _check(alpha, gamma):
    SHARE.check("`alpha`", alpha)
    NOT_NEGATIVE.check("`gamma`", gamma)


@keras.saving.register_keras_serializable(package="libra_keras")
class FocalLoss(keras.losses.Loss):
    """Sigmoid focal loss of boxes: the terms of all classes of a box are added.

    See `focal` for the formula. `call` returns one value per box; calling the object itself also
    applies `sample_weight` and `reduction`, as in every Keras loss.

    Args:
        alpha: float in 0..1, weight of classes that are present.
        gamma: float >= 0; how strongly logits that are nearly right are discounted.
        reduction: as in `keras.losses.Loss`.
        name: name of the loss.
        dtype: as in `keras.losses.Loss`; the terms are float32 in any case.

    Call arguments:
        y_true: tensor `(..., K)`, true or 1 where a class is present; all 0 is background.
        y_pred: tensor `(..., K)`, logits.

    Returns:
        `call`: float32 tensor `(...)`. `__call__`: that, weighted and reduced.

    Raises:
        ValueError: if `alpha` or `gamma` is out of range.

    Example:

    >>> import numpy as np
    >>> from libra_keras.losses import FocalLoss
    >>> loss = FocalLoss(reduction="sum")
    >>> round(float(loss(np.array([[1, 0], [0, 0]]), np.zeros((2, 2)))), 4)
    0.4332

    Source: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 3. Differs from Keras'
    `BinaryFocalCrossentropy`: nothing is clipped, so that very wrong logits keep their gradient.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "focal",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check(alpha, gamma)
        self.alpha = alpha
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.sum(focal(y_true, y_pred, self.alpha, self.gamma), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "dtype": self.dtype,
        }
