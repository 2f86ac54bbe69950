"""SGD and AdamW, which skip updates whose gradients are not finite, and rates by part."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from libra_keras.keras_private import adam_moments, decays, key_of, place_of
from libra_keras.ranges import NOT_NEGATIVE
from libra_keras.training import in_place
from libra_keras.training.skip_nonfinite import Mixin, SkipNonFinite
from libra_keras.typing import Tensor

LearningRate: TypeAlias = (
    float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Tensor]
)


class RateMultipliers(Mixin):
    """Mixin, before a Keras optimizer, that multiplies the learning rates of parts of the model."""

    def __init__(
        self, *args: Any, rate_multipliers: Mapping[str, float] | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        multipliers = dict(rate_multipliers or {})
        wrong = {name: value for name, value in multipliers.items() if not value >= 0}
        if wrong:
            raise ValueError(f"`rate_multipliers` must not be negative. Received: {wrong}")
        self.rate_multipliers = {name: float(value) for name, value in multipliers.items()}
        self._parts: dict[Any, str] | None = None

    def set_parts(self, parts: dict[str, list]) -> None:
        """Says which variables each name means, before the optimizer is built."""
        self._parts = {key_of(self, v): name for name, owned in parts.items() for v in owned}

    def build(self, variables: list) -> None:
        if self.built:
            return
        super().build(variables)
        names = [self._name_of(variable) for variable in variables]
        unused = sorted(set(self.rate_multipliers) - set(names))
        if unused:
            parts = set() if self._parts is None else {*self._parts.values()}
            known = sorted(parts or {v.path for v in variables})
            raise ValueError(
                f"`rate_multipliers` names {', '.join(unused)}, which has no trainable variable. "
                f"There are: {', '.join(known[:10])}"
            )
        self._own_multipliers = [self.rate_multipliers.get(name, 1.0) for name in names]

    def _name_of(self, variable):
        if self._parts is not None:
            return self._parts.get(key_of(self, variable))
        if not self.rate_multipliers:
            return None
        fitting = [n for n in self.rate_multipliers if f"/{n}/" in f"/{variable.path}/"]
        return max(fitting, key=len, default=None)

    def own_rate(self, variable: Tensor, learning_rate: Tensor) -> Tensor:
        """Returns the learning rate of `variable`."""
        multiplier = self._own_multipliers[place_of(self, variable)]
        return learning_rate if multiplier == 1.0 else learning_rate * multiplier

    def get_config(self) -> dict:
        return {**super().get_config(), "rate_multipliers": dict(self.rate_multipliers) or None}


@keras.saving.register_keras_serializable(package="libra_keras", name="CoupledSGD")
class SGD(SkipNonFinite, RateMultipliers, keras.optimizers.Optimizer):
    """SGD as PyTorch defines it, which skips updates whose gradients are not finite.

    For every parameter `p` with gradient `g` (clipped, if clipping is enabled) and velocity `v`
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
    `nonfinite_updates` increases by one. `StopOnNonFinite` watches that counter. A
    `keras.optimizers.LossScaleOptimizer` around it skips such updates first, and they are not
    counted here: they are how it finds its scale.

    With `gradient_accumulation_steps=k` an update takes the mean gradient of k micro-batches. Our
    detectors divide each loss by a count of its own micro-batch (of sampled boxes), so this is the
    mean of k losses, not the loss of one batch that is k times as large. Schedules, `use_ema` and
    clipping see updates, not micro-batches; a micro-batch that is not finite is skipped, and the
    update waits for another one. All of this works under a TensorFlow strategy too.

    Args:
        learning_rate: float, schedule or callable. Defaults to 0.02.
        momentum: float in [0, 1). Defaults to 0.9.
        weight_decay: float >= 0 or `None`, coupled. Defaults to 1e-4.
        **kwargs: of `keras.optimizers.Optimizer`: `global_clipnorm`, `clipnorm`, `clipvalue`,
            `use_ema`, `ema_momentum`, `gradient_accumulation_steps`, `name`, ...; `average_from`,
            a number of updates, with which `use_ema` keeps the mean of the weights after all later
            ones; and `rate_multipliers`, a dict from parts of the model to the factors of their
            learning rates, such as `{"backbone": 0.1}`. The parts of detectors have the names of
            the constructor's arguments; in other models these are names of layers.

    Raises:
        ValueError: if `momentum`, `weight_decay` or `average_from` is out of range.

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

    def __init__(
        self,
        learning_rate: LearningRate = 0.02,
        momentum: float = 0.9,
        weight_decay: float | None = 1e-4,
        **kwargs: Any,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        _check_rates(learning_rate, weight_decay)
        kwargs.setdefault("name", "coupled_sgd")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = float(momentum)

    def build(self, variables: list) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        learning_rate = ops.cast(self.own_rate(variable, learning_rate), variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        slot = self.velocities[place_of(self, variable)]
        value = ops.convert_to_tensor(variable)
        if self.weight_decay and decays(self, variable):
            gradient = gradient + self.weight_decay * value
        if in_place.is_possible():
            in_place.momentum_step(variable, slot, gradient, learning_rate, self.momentum)
            return
        # `SkipNonFinite` makes either every element of every gradient NaN, or none.
        keep, velocity = ops.isnan(gradient), ops.convert_to_tensor(slot)
        moved = self.momentum * velocity + gradient
        self.assign(variable, ops.where(keep, value, value - learning_rate * moved))
        self.assign(slot, ops.where(keep, velocity, moved))

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="libra_keras", name="GuardedAdamW")
class AdamW(SkipNonFinite, RateMultipliers, keras.optimizers.AdamW):
    """AdamW that skips updates whose gradients are not finite, like this package's `SGD`.

    The update is that of `keras.optimizers.AdamW`, with all its arguments. If any gradient (on any
    replica, or after clipping) contains an infinity or a NaN, parameters, moments and `iterations`
    stay as they are, and `nonfinite_updates` increases by one. Accumulation and averages work as
    `SGD` describes. For networks that train from scratch in few steps; the reference's recipes
    fine-tune with `SGD`.

    Args:
        learning_rate: float, schedule or callable. Defaults to 0.001.
        weight_decay: float >= 0, decoupled: multiplied by the learning rate. Defaults to 0.004.
        **kwargs: of `keras.optimizers.AdamW`: `beta_1`, `beta_2`, `epsilon`, `global_clipnorm`,
            ...; `average_from` and `rate_multipliers`, as in `SGD`.

    Raises:
        ValueError: if `weight_decay` or `average_from` is negative, `beta_1` or `beta_2` is not in
            [0, 1), or `amsgrad` is enabled.

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

    def __init__(
        self, learning_rate: LearningRate = 0.001, weight_decay: float = 0.004, **kwargs: Any
    ):
        _check_rates(learning_rate, weight_decay)
        for name in ("beta_1", "beta_2"):
            if not 0 <= kwargs.get(name, 0) < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {kwargs[name]}")
        if kwargs.get("amsgrad"):
            raise ValueError("`amsgrad` is not supported. Received: amsgrad=True")
        kwargs.setdefault("name", "guarded_adamw")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        rate = ops.cast(self.own_rate(variable, learning_rate), dtype)
        slots = adam_moments(self, place_of(self, variable))
        step = ops.cast(self.iterations + 1, dtype)
        has_decay = self.weight_decay and decays(self, variable)
        if in_place.is_possible() and dtype == "float32":
            if has_decay:
                self.assign_sub(variable, rate * self.weight_decay * variable)
            betas = self.beta_1, self.beta_2
            in_place.adam_step(variable, slots, gradient, rate, betas, self.epsilon, step)
            return
        value, first, second = (ops.convert_to_tensor(x) for x in (variable, *slots))
        keep = ops.isnan(gradient)  # in all elements of all gradients, or in none
        # Rounded as in the correction below: its first step then has the size of the rate.
        first_rest, second_rest = (1 - float(np.float32(b)) for b in (self.beta_1, self.beta_2))
        new_first = first + (gradient - first) * first_rest
        new_second = second + (ops.square(gradient) - second) * second_rest
        scale = ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        moved = value - rate * scale * new_first / (ops.sqrt(new_second) + self.epsilon)
        if has_decay:
            moved = moved - rate * self.weight_decay * value
        for target, old, new in (
            (variable, value, moved),
            (slots[0], first, new_first),
            (slots[1], second, new_second),
        ):
            self.assign(target, ops.where(keep, old, new))


def _check_rates(learning_rate, weight_decay):
    if isinstance(learning_rate, Real):  # else a schedule, a function or a variable
        NOT_NEGATIVE.check("`learning_rate`", learning_rate)
    if weight_decay is not None:
        NOT_NEGATIVE.check("`weight_decay`", weight_decay)
