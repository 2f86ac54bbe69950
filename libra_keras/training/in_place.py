"""Updates of variables in their own memory, by one operation each: TensorFlow without a strategy.

Assigning what was computed elsewhere takes another copy of all weights, and several passes.
"""

import keras

from libra_keras.functional import native


def is_possible():
    """Whether updates may be made so here: twins on, and no strategy."""
    if not native.enabled():
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def when(condition, action):
    """Calls `action`, which assigns to variables, if a condition holds when the graph runs."""
    import tensorflow as tf

    def act():
        action()
        return tf.constant(0)

    tf.cond(tf.convert_to_tensor(condition), act, lambda: tf.constant(0))


def momentum_step(variable, velocity, gradient, learning_rate, momentum):
    """`velocity = momentum * velocity + gradient; variable -= learning_rate * velocity`."""
    import tensorflow as tf

    tf.raw_ops.ResourceApplyMomentum(
        var=_handle(variable),
        accum=_handle(velocity),
        lr=learning_rate,
        grad=gradient,
        momentum=momentum,
    )


def adam_step(variable, moments, gradient, learning_rate, betas, epsilon, step):
    """Adam's update number `step`, from 1 (Kingma and Ba, 2015, the end of section 2)."""
    import tensorflow as tf

    first, second = moments
    tf.raw_ops.ResourceApplyAdam(
        var=_handle(variable),
        m=_handle(first),
        v=_handle(second),
        beta1_power=betas[0] ** step,
        beta2_power=betas[1] ** step,
        lr=learning_rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient,
    )


def _handle(variable):
    """What TensorFlow's operations know a variable of TensorFlow's or of Keras' by."""
    own = variable.value if isinstance(variable, keras.Variable) else variable
    return own.handle
