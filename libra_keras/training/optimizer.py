"""Stochastic gradient descent with the update rule that the reference results were made with."""

import keras
from keras import ops

from libra_keras.training.rate_multipliers import RateMultipliers
from libra_keras.training.skip_nonfinite import SkipNonFinite


@keras.saving.register_keras_serializable(package="libra_keras", name="CoupledSGD")
class SGD(SkipNonFinite, RateMultipliers, keras.optimizers.Optimizer):
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

    If any gradient (on any replica, or after clipping) contains an infinity or a NaN, the whole
    update is skipped: parameters, velocities and `iterations` stay as they are, and
    `nonfinite_updates` counts one more. `StopOnNonFinite` watches that counter. Inside a
    `keras.optimizers.LossScaleOptimizer` that wrapper skips such updates first, and does not
    count them here: they are how it finds its scale.

    With `gradient_accumulation_steps=k` an update takes the mean gradient of k micro-batches. Our
    detectors divide each loss by a count of its own micro-batch (of sampled boxes), so that this is
    the mean of k losses, not the loss of one batch that is k times as large. Schedules, `use_ema`
    and clipping see updates, not micro-batches; a micro-batch that is not finite is left out, and
    the update waits for another one. All of this works under a TensorFlow strategy too.

    Args:
        learning_rate: float, schedule or callable. Defaults to 0.02.
        momentum: float in [0, 1). Defaults to 0.9.
        weight_decay: float >= 0 or `None`, coupled. Defaults to 1e-4.
        **kwargs: of `keras.optimizers.Optimizer`: `global_clipnorm`, `clipnorm`, `clipvalue`,
            `use_ema`, `ema_momentum`, `gradient_accumulation_steps`, `name`, ...; `average_from`,
            a number of updates: then `use_ema` keeps the mean of the weights after all later ones;
            and `rate_multipliers`, a dict from parts of the model to what their learning rate is
            multiplied by, such as `{"backbone": 0.1}`. Detectors know their parts by the names of
            the constructor's arguments; in other models these are names of layers.

    Raises:
        ValueError: if `momentum`, `weight_decay` or `average_from` is out of its range.

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
        learning_rate = ops.cast(self.own_rate(variable, learning_rate), variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        slot = self.velocities[self._get_variable_index(variable)]
        value, velocity = ops.convert_to_tensor(variable), ops.convert_to_tensor(slot)
        # `SkipNonFinite` makes either every element of every gradient NaN, or none.
        keep = ops.isnan(gradient)
        if self.weight_decay and self._use_weight_decay(variable):
            gradient = gradient + self.weight_decay * value
        moved = self.momentum * velocity + gradient
        self.assign(variable, ops.where(keep, value, value - learning_rate * moved))
        self.assign(slot, ops.where(keep, velocity, moved))

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
