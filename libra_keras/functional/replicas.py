"""What a model must know of the other replicas of a TensorFlow distribution strategy.

R replicas hold parts of one global batch. They make the update of one device if losses are divided
by counts of the global batch, random choices depend on an image's place in it, and a replica that
got no image adds nothing. Outside a strategy, and on the other backends, where one program sees
the whole batch, everything here does nothing.
"""

import contextlib
import threading

import keras
from keras import ops

_own = threading.local()  # replicas are traced in threads of their own


def sum_over_replicas(x):
    """Sums a tensor over the replicas of a TensorFlow distribution strategy.

    Losses are divided by counts of the *global* batch (sampled anchors, positives), so that R
    replicas give the update of one device. Outside a strategy, in cross-replica context, and on
    the other backends `x` comes back as it is. Must not be called inside an island.

    Args:
        x: tensor of any shape, or number.

    Returns:
        Tensor of the same shape.

    Example:

    >>> from libra_keras.functional import replicas
    >>> float(replicas.sum_over_replicas(3.0))
    3.0
    """
    replica = _context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    import tensorflow as tf

    return replica.all_reduce(tf.distribute.ReduceOp.SUM, ops.convert_to_tensor(x))


def num_replicas():
    """Number of replicas of the TensorFlow strategy that this runs under; 1 elsewhere.

    Example:

    >>> from libra_keras.functional import replicas
    >>> replicas.num_replicas()
    1
    """
    replica = _context()
    return 1 if replica is None else replica.num_replicas_in_sync


def global_positions(batch_size):
    """Positions in the global batch of the images of this replica.

    Random choices depend on them, so that R replicas draw what one device draws. The replicas
    hold the images of the global batch in its order, not necessarily equally many.

    Args:
        batch_size: int or scalar tensor b, images of this replica.

    Returns:
        int32 tensor `(b,)`: 0 to b - 1 on one device; the second replica begins where the first
        ends.

    Example:

    >>> from libra_keras.functional import replicas
    >>> [int(position) for position in replicas.global_positions(3)]
    [0, 1, 2]
    """
    positions = ops.arange(batch_size, dtype="int32")
    replica = _context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return positions
    number = ops.arange(replica.num_replicas_in_sync)
    own = ops.cast(replica.replica_id_in_sync_group, number.dtype)
    # As floats: integers of 32 bits are not summed on GPUs.
    counts = ops.where(number == own, ops.cast(batch_size, "float32"), 0.0)
    before = ops.where(number < own, sum_over_replicas(counts), 0.0)
    return ops.cast(ops.sum(before), "int32") + positions


def with_global_value(losses):
    """Gives a replica's losses the value of all replicas', and leaves them their own gradient.

    Keras weighs what replicas report by their numbers of images. The mean is right, however
    unevenly images and losses are spread, if all report the same.

    Args:
        losses: list of scalar tensors, this replica's part of sums over the global batch.

    Returns:
        List of scalar tensors with the value of 1 / R of the sum over R replicas.

    Example:

    >>> from libra_keras.functional import replicas
    >>> replicas.with_global_value([3.0])
    [3.0]
    """
    count = num_replicas()
    if count == 1:
        return losses
    own = ops.stack(losses)
    total = sum_over_replicas(ops.stop_gradient(own))
    return ops.unstack(own + ops.stop_gradient(total / count - own), num=len(losses))


def with_an_image(x, value=0):
    """Adds a row to an array of a batch that has none, on a replica among several.

    A last batch that does not reach all replicas leaves some without images, and convolutions of
    nothing fail on CPUs. The blank image has the size 0, which is how the rest knows it.

    Args:
        x: tensor `(b, ...)`.
        value: number that fills the row.

    Returns:
        Tensor `(max(b, 1), ...)`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.functional import replicas
    >>> len(replicas.with_an_image(np.zeros((0, 4))))  # outside a strategy nothing is added
    0
    """
    if num_replicas() == 1:
        return x
    shape = ops.shape(x)
    row = ops.full((1 - ops.minimum(shape[0], 1), *shape[1:]), value, dtype=x.dtype)
    return ops.concatenate([x, row], axis=0)


@contextlib.contextmanager
def counting(image_sizes):
    """Within this context `presence` says whether the replica has images.

    Args:
        image_sizes: int tensor `(B, 2)`, 0 for the blank image of `with_an_image`.

    Example:

    >>> from libra_keras.functional import replicas
    >>> with replicas.counting([[0, 0]]):
    ...     replicas.presence()  # outside a strategy there is no blank image
    1.0
    """
    if num_replicas() == 1:
        yield
        return
    before = getattr(_own, "presence", 1.0)
    _own.presence = ops.cast(ops.any(image_sizes > 0), "float32")
    try:
        yield
    finally:
        _own.presence = before


def presence():
    """1 where the images of this replica count, 0 where there is a blank one alone.

    Example:

    >>> from libra_keras.functional import replicas
    >>> replicas.presence()
    1.0
    """
    return getattr(_own, "presence", 1.0)


def _context():
    """TensorFlow's replica context; `None` on other backends and in cross-replica context."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
