"""The learning-rate schedule of the R-CNN recipes: a linear warm-up, then drops."""

from collections.abc import Iterable

import keras
from keras import ops

from libra_keras.ranges import POSITIVE, Range, whole
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class WarmupMultiStep(keras.optimizers.schedules.LearningRateSchedule):
    """Raises the learning rate linearly, then multiplies it by a factor at given steps.

    Steps are counted from 0, as `optimizer.iterations` counts them: step `t` is the update that
    finds `t` updates done. The rate of step `t` is `learning_rate * warm(t) * drop(t)` with

    - `warm(t) = warmup_factor + (1 - warmup_factor) * min(t / (warmup_steps - 1), 1)`: the first
      update uses `warmup_factor * learning_rate`, and the `warmup_steps`-th update (`t =
      warmup_steps - 1`) is the first at the full rate;
    - `drop(t) = drop_factor ** (number of drops <= t)`: with a drop at step 100, updates 0..99
      use the old rate and update 100 is the first to use the new one.

    Args:
        learning_rate: float > 0, the full rate.
        warmup_steps: int >= 0, updates until the full rate is reached; 0 and 1 mean no warm-up.
            Defaults to 500.
        warmup_factor: float in (0, 1], the share of the full rate that the first update uses.
            Defaults to 0.001.
        drops: increasing ints, the steps at which the rate drops (for "after epochs 8 and 11":
            8 and 11 times the steps of an epoch). Defaults to none.
        drop_factor: float in (0, 1], what each drop multiplies the rate by. Defaults to 0.1.
        name: str or `None`.

    Call arguments:
        step: int or scalar integer tensor.

    Returns:
        Scalar tensor of Keras' float type.

    Raises:
        ValueError: if a number is out of range or `drops` does not increase.

    Example:

    >>> from libra_keras.training import WarmupMultiStep
    >>> schedule = WarmupMultiStep(0.02, warmup_steps=5, warmup_factor=0.2, drops=(100, 150))
    >>> [round(float(schedule(step)), 6) for step in (0, 2, 4, 99, 100, 150)]
    [0.004, 0.012, 0.02, 0.02, 0.002, 0.0002]

    The numbers are those of mmengine's `LinearLR(begin=0, end=warmup_steps, by_epoch=False)`,
    whose ramp has `end - begin - 1` intervals, together with its `MultiStepLR`.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 500,
        warmup_factor: float = 0.001,
        drops: Iterable[int] = (),
        drop_factor: float = 0.1,
        name: str | None = None,
    ):
        super().__init__()
        POSITIVE.check("`learning_rate`", learning_rate)
        whole(0).check("`warmup_steps`", warmup_steps)
        for key, factor in (("warmup_factor", warmup_factor), ("drop_factor", drop_factor)):
            Range(0, 1, "(]").check(f"`{key}`", factor)
        drops = [int(step) for step in drops]
        if any(late <= early for early, late in zip(drops, drops[1:], strict=False)):
            raise ValueError(f"`drops` must be increasing steps. Received: {drops}")
        self.learning_rate = float(learning_rate)
        self.warmup_steps = int(warmup_steps)
        self.warmup_factor = float(warmup_factor)
        self.drops = drops
        self.drop_factor = float(drop_factor)
        self.name = name

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, keras.config.floatx())
        rate = self.learning_rate * self._warm(step)
        for drop in self.drops:
            rate = ops.where(step >= drop, rate * self.drop_factor, rate)
        return rate

    def _warm(self, step):
        intervals = max(self.warmup_steps - 1, 0)
        if intervals == 0:
            return ops.ones_like(step)
        return self.warmup_factor + (1 - self.warmup_factor) * ops.minimum(step / intervals, 1.0)

    def get_config(self) -> dict:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "drops": self.drops,
            "drop_factor": self.drop_factor,
            "name": self.name,
        }
