"""Whether a backend has taken its devices: from then on it listens to no settings about them."""


class TooLate(RuntimeError, ValueError):
    """Raised over a setting that a backend reads when it starts, and it has started.

    It is a `RuntimeError`, as what backends raise over it, and a `ValueError`, as what is raised
    over devices that a machine does not have: the command prints both in the same way.

    Example:

    >>> from libra_keras.devices import TooLate
    >>> issubclass(TooLate, RuntimeError)
    True
    """


def tensorflow_has_started() -> bool:
    """Returns whether TensorFlow has taken its devices, and does not make it do so."""
    import tensorflow as tf

    # Nothing public tells, except that this can be changed before and not after.
    count = tf.config.threading.get_inter_op_parallelism_threads()
    try:
        tf.config.threading.set_inter_op_parallelism_threads(count + 1)
    except RuntimeError:
        return True
    tf.config.threading.set_inter_op_parallelism_threads(count)
    return False


def jax_has_started() -> bool:
    """Returns whether JAX has taken its devices, and does not make it do so."""
    from jax._src import xla_bridge  # whatever is public and tells would start it

    return xla_bridge.backends_are_initialized()
