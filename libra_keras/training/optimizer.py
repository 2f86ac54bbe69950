"""Stochastic gradient descent with the update rule that the reference results were made with."""

import keras
from keras import ops

from libra_keras.training.skip_nonfinite import SkipNonFinite


@keras.saving.register_keras_serializable(package="libra_keras", name="CoupledSGD")
class SGD(SkipNonFinite, keras.optimizers.Optimizer):
    """SGD as PyTorch defines it, which leaves everything alone when a gradient is not finite.

    For every parameter `p` with gradient `g` (clipped, if clipping is asked for) and velocity `v`
    (zero at first):

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - learning_rate * v

    `keras.optimizers.SGD` differs in two ways. Its velocity contains the learning rate, so that
    old gradients keep the rate of *their* step after a drop; and its weight decay is decoupled
    from the velocity. Weight decay here applies to all trainable parameters, as in the reference
    recipes; `exclude_from_weight_decay` makes exceptions.

    If any gradient (on any replica, after clipping) contains an infinity or a NaN, the whole
    update is skipped: parameters, velocities and `iterations` stay as they are, and
    `nonfinite_updates` counts one more. `StopOnNonFinite` watches that counter. With gradient
    accumulation the unit that is skipped is the accumulated update. Inside a
    `keras.optimizers.LossScaleOptimizer` that wrapper skips such updates first, and does not
    count them here: they are how it finds its scale.

    Args:
        learning_rate: float, schedule or callable. Defaults to 0.02.
        momentum: float in [0, 1). Defaults to 0.9.
        weight_decay: float >= 0 or `None`, coupled. Defaults to 1e-4.
        **kwargs: of `keras.optimizers.Optimizer`: `global_clipnorm`, `clipnorm`, `clipvalue`,
            `use_ema`, `gradient_accumulation_steps`, `name`, ...

    Raises:
        ValueError: if `momentum` or `weight_decay` is out of its range.

    Example:

    >>> import keras
    >>> from libra_keras.training import SGD
    >>> optimizer = SGD(0.1, momentum=0.5, weight_decay=0.0)
    >>> weight = keras.Variable([1.0])
    >>> for _ in range(2):  # velocities 1 and 1.5: 1 - 0.1 * 2.5
    ...     optimizer.apply([keras.ops.convert_to_tensor([1.0])], [weight])
    >>> round(float(weight[0]), 6)
    0.75

    Differs from Sutskever et al. (2013) as PyTorch does: the rate multiplies the velocity.
    """

    def __init__(self, learning_rate=0.02, momentum=0.9, weight_decay=1e-4, **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1). Received: momentum={momentum}")
        if weight_decay is not None and not weight_decay >= 0:
            raise ValueError(f"`weight_decay` must not be negative. Received: {weight_decay}")
        kwargs.setdefault("name", "coupled_sgd")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = float(momentum)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        slot = self.velocities[self._get_variable_index(variable)]
        value, velocity = ops.convert_to_tensor(variable), ops.convert_to_tensor(slot)
        # `_backend_update_step` makes either every element of every gradient NaN, or none.
        keep = ops.isnan(gradient)
        if self.weight_decay and self._use_weight_decay(variable):
            gradient = gradient + self.weight_decay * value
        moved = self.momentum * velocity + gradient
        self.assign(variable, ops.where(keep, value, value - learning_rate * moved))
        self.assign(slot, ops.where(keep, velocity, moved))

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
