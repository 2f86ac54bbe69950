"""The scale of float16's losses, the same on all replicas of a TensorFlow strategy."""

import keras
from keras import ops

from libra_keras.functional.replicas import sum_over_replicas


@keras.saving.register_keras_serializable(package="libra_keras")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` that halves its scale when *any* replica overflows.

    Keras asks the first replica alone, and would apply what overflowed on another one.
    `Detector.compile` wraps optimizers in it where Keras would in its own: under the policy
    `mixed_float16`.

    Args:
        inner_optimizer: Keras optimizer.
        initial_scale, dynamic_growth_steps, name: of `keras.optimizers.LossScaleOptimizer`.

    Example:

    >>> import keras
    >>> from libra_keras.models.loss_scaling import LossScaleOptimizer
    >>> from libra_keras.training import SGD
    >>> optimizer = LossScaleOptimizer(SGD(0.5), initial_scale=4.0)
    >>> weight = keras.Variable([1.0])
    >>> optimizer.apply([keras.ops.convert_to_tensor([float("inf")])], [weight])
    >>> float(optimizer.dynamic_scale), float(weight[0])
    (2.0, 1.0)
    """

    def check_finite(self, grads):
        overflow = ops.logical_not(super().check_finite(grads))
        return ops.equal(sum_over_replicas(ops.cast(overflow, "float32")), 0.0)

    # The inner optimizer's variables are saved with that. Keras would save them here once more.

    def save_own_variables(self, store):
        for i, variable in enumerate(self._variables):
            store[str(i)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        for i, variable in enumerate(self._variables):
            variable.assign(store[str(i)])


def with_loss_scale(optimizer, policy):
    """Returns the optimizer, wrapped if the dtype policy of the model is `mixed_float16`.

    Args:
        optimizer: Keras optimizer, its name or config, or `None`.
        policy: `keras.DTypePolicy`.

    Example:

    >>> import keras
    >>> from libra_keras.models.loss_scaling import with_loss_scale
    >>> type(with_loss_scale("sgd", keras.DTypePolicy("mixed_float16"))).__name__
    'LossScaleOptimizer'
    >>> type(with_loss_scale("sgd", keras.DTypePolicy("mixed_bfloat16"))).__name__
    'SGD'
    """
    optimizer = keras.optimizers.get(optimizer)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if optimizer is None or is_scaled or policy.name != "mixed_float16":
        return optimizer
    return LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
