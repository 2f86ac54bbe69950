"""A look at the first batch of a `fit`, for which no other batch pays."""

import itertools
import warnings

import keras
import numpy as np
from keras import ops


def watched(model, find):
    """Lets the next batch that a detector trains on be looked at, once.

    The batch is taken out of Keras' iterator, and put back in front of the others: nothing is read
    twice, nobody's generator loses an item, and the compiled function is the same.

    Args:
        model: detector; its `train_function`, which Keras has just made, is replaced, and is back
            from the first batch on.
        find: function from the batch, `x` and `y` as NumPy arrays, to a sentence, of which users
            are warned, or `None`.

    Replicas of a TensorFlow strategy have parts of a batch on their devices: there nothing is
    looked at. Nor are arrays that several machines share on JAX.

    Example:

    >>> from libra_keras.models import rpn_small
    >>> from libra_keras.models.first_batch import watched
    >>> model = rpn_small()
    >>> model.train_function = own = lambda batches: "logs"
    >>> watched(model, lambda x, y: None)
    >>> model.train_function(iter([])), model.train_function is own
    ('logs', True)
    """
    function = model.train_function

    def look(*given):
        model.train_function = function
        *state, batches = given
        batch, batches = _peeked(batches, model.steps_per_execution)
        if batch is not None:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            sentence = find(_arrays(x), _arrays(y))
            if sentence:
                warnings.warn(sentence, stacklevel=2)
        return function(*state, batches)

    model.train_function = look


def _peeked(batches, count):
    """The first of the batches that a train function gets, and what it is to get instead.

    Args:
        batches: on PyTorch a list of them, else an iterator.
        count: int, how many of them a call of the function takes.
    """
    if keras.backend.backend() == "tensorflow":
        return _peeked_tensorflow(batches, count)
    if isinstance(batches, list):
        return (batches[0] if _is_here(batches) else None), batches
    first = list(itertools.islice(batches, 1))
    return (first[0] if _is_here(first) else None), itertools.chain(first, batches)


def _is_here(batches):
    """Whether there is a batch, all of it in this process."""
    leaves = keras.tree.flatten(batches[:1])
    return bool(leaves) and all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves)


def _peeked_tensorflow(batches, count):
    """A function that was traced takes an iterator of the same types, of however few batches."""
    import tensorflow as tf

    if not isinstance(batches, tf.data.Iterator):  # of several replicas
        return None, batches
    types = batches.element_spec
    if not all(
        isinstance(leaf, (tf.TensorSpec, tf.RaggedTensorSpec)) for leaf in tf.nest.flatten(types)
    ):
        return None, batches
    first = list(itertools.islice(batches, count))
    if not first:
        return None, batches
    again = tf.data.Dataset.from_generator(lambda: iter(first), output_signature=types)
    return first[0], iter(again)


def _arrays(values):
    def array(value):
        if hasattr(value, "to_tensor"):  # ragged
            value = value.to_tensor(-1)
        return value if isinstance(value, np.ndarray) else ops.convert_to_numpy(value)

    return keras.tree.map_structure(lambda v: None if v is None else array(v), values)
