"""Optimizers that leave everything alone when a gradient is not finite."""

from keras import ops

from libra_keras.functional.native import sum_over_replicas


class SkipNonFinite:
    """Mixin, before a Keras optimizer, that skips an update with a gradient that is not finite.

    `_backend_update_step` gives `update_step` either gradients without any NaN, or gradients that
    are NaN in every element: then `update_step` must keep what it has. `iterations` stays too, and
    `nonfinite_updates` counts one more.
    """

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.nonfinite_updates = self.add_variable(
            shape=(), dtype="int", aggregation="only_first_replica", name="nonfinite_updates"
        )

    def _apply_weight_decay(self, variables):
        """Does nothing: Keras would decay before the gradients are looked at."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Runs on the clipped (and accumulated) gradients of one replica, before their sum."""
        # A sum is finite only if all its terms are, and costs one pass over the gradients.
        finite = ops.all(ops.isfinite(ops.stack([ops.sum(grad) for grad in grads])))
        skipped = sum_over_replicas(ops.cast(ops.logical_not(finite), "float32")) > 0
        # The verdict travels inside the gradients: a conditional around the update would forbid
        # the merge of replicas that happens in it.
        grads = [ops.where(skipped, ops.cast(float("nan"), grad.dtype), grad) for grad in grads]
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self._count(ops.cast(skipped, self._iterations.dtype))

    def _count(self, skipped):
        self.nonfinite_updates.assign_add(skipped)
        # `apply` is about to count this update; with accumulation it has counted the parts too.
        self._iterations.assign_sub(skipped * (self.gradient_accumulation_steps or 1))
