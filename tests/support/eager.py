"""Trainings without graphs: of a few steps, making the graph is what takes the time."""

import contextlib

import keras


@contextlib.contextmanager
def without_graphs():
    """Context in which TensorFlow runs steps operation by operation; other backends do as ever."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
