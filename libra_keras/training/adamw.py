"""Keras' AdamW, which leaves everything alone when a gradient is not finite."""

import keras
from keras import ops

from libra_keras.training.rate_multipliers import RateMultipliers
from libra_keras.training.skip_nonfinite import SkipNonFinite


@keras.saving.register_keras_serializable(package="libra_keras", name="GuardedAdamW")
class AdamW(SkipNonFinite, RateMultipliers, keras.optimizers.AdamW):
    """AdamW that skips updates whose gradients are not finite, as `SGD` of this package does.

    The update is that of `keras.optimizers.AdamW`, with all its arguments. If any gradient (on any
    replica, or after clipping) contains an infinity or a NaN, parameters, moments and `iterations`
    stay as they are, and `nonfinite_updates` counts one more. Accumulation and averages work as
    `SGD` describes. For networks that learn from nothing in few steps; the reference's recipes
    fine-tune with `SGD`.

    Args:
        learning_rate: float, schedule or callable. Defaults to 0.001.
        weight_decay: float >= 0, decoupled: multiplied by the learning rate. Defaults to 0.004.
        **kwargs: of `keras.optimizers.AdamW`: `beta_1`, `beta_2`, `epsilon`, `global_clipnorm`,
            ...; `average_from` and `rate_multipliers`, as in `SGD`.

    Raises:
        ValueError: if `weight_decay` or `average_from` is negative, `beta_1` or `beta_2` not in
            [0, 1), or `amsgrad` is asked for.

    Example:

    >>> import keras
    >>> from libra_keras.training import AdamW
    >>> optimizer = AdamW(0.5, weight_decay=0.0)
    >>> weight = keras.Variable([1.0])
    >>> for gradient in (4.0, float("nan")):  # the first step of Adam has the size of the rate
    ...     optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
    >>> round(float(weight[0]), 4), int(optimizer.iterations), int(optimizer.nonfinite_updates)
    (0.5, 1, 1)

    Reference: [Loshchilov and Hutter, 2019](https://arxiv.org/abs/1711.05101).
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.004, **kwargs):
        if not weight_decay >= 0:
            raise ValueError(f"`weight_decay` must not be negative. Received: {weight_decay}")
        for name in ("beta_1", "beta_2"):
            if not 0 <= kwargs.get(name, 0) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1). Received: {kwargs[name]}")
        if kwargs.get("amsgrad"):
            raise ValueError("`amsgrad` is not supported. Received: amsgrad=True")
        kwargs.setdefault("name", "guarded_adamw")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        rate = ops.cast(self.own_rate(variable, learning_rate), dtype)
        index = self._get_variable_index(variable)
        slots = self._momentums[index], self._velocities[index]
        value, first, second = (ops.convert_to_tensor(x) for x in (variable, *slots))
        keep = ops.isnan(gradient)  # in all elements of all gradients, or in none
        step = ops.cast(self.iterations + 1, dtype)
        new_first = first + (gradient - first) * (1 - self.beta_1)
        new_second = second + (ops.square(gradient) - second) * (1 - self.beta_2)
        scale = ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        moved = value - rate * scale * new_first / (ops.sqrt(new_second) + self.epsilon)
        if self.weight_decay and self._use_weight_decay(variable):
            moved = moved - rate * self.weight_decay * value
        for target, old, new in (
            (variable, value, moved),
            (slots[0], first, new_first),
            (slots[1], second, new_second),
        ):
            self.assign(target, ops.where(keep, old, new))
