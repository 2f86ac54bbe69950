"""What our optimizers do with gradients before and after the arithmetic of an update."""

from typing import Any

import keras
from keras import ops

from libra_keras.functional.native_gradients import after
from libra_keras.keras_private import (
    add_to_sums,
    averages_of,
    batches_of,
    clipped,
    given_rate,
    gradient_sums,
    place_of,
    trained_by,
    update,
)
from libra_keras.training import in_place

Mixin: Any = object  # to type checkers any class: an optimizer comes behind it


# In the order of events, the same on one device and on the replicas of a TensorFlow strategy:
# gradients are added up over the replicas, averaged with those of the micro-batches before
# (`gradient_accumulation_steps`), clipped, and looked at. A batch that makes them infinite or NaN
# is left out as if it had never been: parameters, slots, sums and `iterations` stay, and
# `nonfinite_updates` counts one more.
#
# `update_step` gets either gradients without any NaN, or gradients that are NaN in every element:
# then it must keep what it has. The verdict travels inside the gradients, since a conditional
# around the update would forbid the merge of replicas that happens in it. Keras' own accumulation,
# which has such a conditional, fails under a strategy. On one device of TensorFlow there is a
# conditional: `update_step` is not run at all, and may use operations that update in place.
#
# Moving averages (`use_ema`) and schedules of the learning rate follow updates, not micro-batches.
# With `average_from` the averages are the mean of the weights after all updates but the first
# `average_from`, in the place of `ema_momentum`; until then they are the weights.
class SkipNonFinite(Mixin):
    """Mixin, before a Keras optimizer, that never applies a gradient that is not finite."""

    def __init__(self, *args: Any, average_from: int | None = None, **kwargs: Any):
        is_number = isinstance(average_from, int) and not isinstance(average_from, bool)
        if average_from is not None and not (is_number and average_from >= 0):
            raise ValueError(f"`average_from` must be an int >= 0. Received: {average_from!r}")
        if average_from is not None:
            kwargs["use_ema"] = True
        super().__init__(*args, **kwargs)
        self.average_from = average_from

    def build(self, variables: list) -> None:
        if self.built:
            return
        super().build(variables)
        self.nonfinite_updates = self.add_variable(
            shape=(), dtype="int", aggregation="only_first_replica", name="nonfinite_updates"
        )

    def _get_current_learning_rate(self):
        schedule = given_rate(self)
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            return schedule(self.iterations)  # updates; Keras would count micro-batches
        return super()._get_current_learning_rate()

    def _apply_weight_decay(self, variables):
        """Does nothing: Keras would decay before the gradients are looked at."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        """Takes the gradients of one replica's batch, once Keras has unscaled them."""
        grads = self._over_replicas(grads, trainable_variables)
        sums, slots = self._accumulated(grads, trainable_variables)
        steps = self.gradient_accumulation_steps or 1
        ready = clipped(self, [each / steps for each in sums] if slots else sums)
        # A norm that clips makes NaN of what is infinite; clipped values hide it.
        seen = [*sums, *ready] if self.clipvalue else ready
        # A sum is finite only if all its terms are, and costs one pass over the gradients.
        finite = ops.all(ops.isfinite(ops.stack([ops.sum(grad) for grad in seen])))
        complete = ops.equal((batches_of(self) + 1) % steps, 0)
        due = ops.logical_and(finite, complete)
        if in_place.is_possible():
            in_place.when(due, lambda: update(self, ready, trainable_variables))
        else:
            ready = [ops.where(due, grad, ops.cast(float("nan"), grad.dtype)) for grad in ready]
            with after(due):  # else parts of it would wait in memory for the gradients
                update(self, ready, trainable_variables)
        if slots:
            self._keep_sums(grads, slots, finite, complete)
        if self.use_ema:
            self._average(due)
        skipped = ops.cast(ops.logical_not(finite), batches_of(self).dtype)
        self.nonfinite_updates.assign_add(skipped)
        batches_of(self).assign_sub(skipped)  # `apply` is about to count this batch

    def finalize_variable_values(self, var_list: list) -> None:
        # Before the first batch that counts, averages may still be zeros.
        if int(ops.convert_to_numpy(batches_of(self))):
            super().finalize_variable_values(var_list)

    def _over_replicas(self, grads, variables):
        if keras.backend.backend() != "tensorflow":
            return grads  # one program sees the whole batch
        pairs = super()._all_reduce_sum_gradients(zip(grads, variables, strict=True))
        return [grad for grad, _ in pairs]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # added up already: the norm that clips is that of the sum

    def _accumulated(self, grads, variables):
        """Sums with the micro-batches before, and the variables that hold those."""
        if not self.gradient_accumulation_steps:
            return grads, []
        slots = [gradient_sums(self)[place_of(self, v)] for v in variables]
        sums = [ops.convert_to_tensor(s) + grad for s, grad in zip(slots, grads, strict=True)]
        return sums, slots

    def _keep_sums(self, grads, slots, finite, complete):
        """Adds a micro-batch to the sums; the last one empties them, one left out adds nothing."""
        added = [
            ops.where(finite, ops.where(complete, -ops.convert_to_tensor(slot), grad), 0.0)
            for slot, grad in zip(slots, grads, strict=True)
        ]
        add_to_sums(self, added, slots)

    def _average(self, due):
        """Moves the averages after an update; they begin as the weights that it has made."""
        first = ops.less_equal(self.iterations, self.average_from or 0)
        overwrite = False
        if self.ema_overwrite_frequency:
            turn = ops.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0)
            overwrite = ops.logical_and(due, turn)
        pairs = zip(trained_by(self), averages_of(self), strict=True)
        for variable, slot in pairs:
            value, old = ops.convert_to_tensor(variable), ops.convert_to_tensor(slot)
            average = ops.where(first, value, ops.where(due, self._moved(old, value), old))
            slot.assign(average)
            if overwrite is not False:
                variable.assign(ops.where(overwrite, average, value))

    def _moved(self, average, value):
        """An average after one more value."""
        if self.average_from is None:
            return self.ema_momentum * average + (1 - self.ema_momentum) * value
        count = ops.maximum(self.iterations - self.average_from + 1, 1)  # of values, this one too
        # Not as above: a momentum near 1 would be rounded, and the mean would drift.
        return average + (value - average) / ops.cast(count, value.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "average_from": self.average_from}
