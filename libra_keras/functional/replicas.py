"""What a model must know of the other replicas of a TensorFlow distribution strategy."""

# R replicas hold parts of one global batch. They make the update of one device if losses are
# divided by counts of the global batch, random choices depend on an image's place in it, and a
# replica that got no image adds nothing. Outside a strategy, and on the other backends, where one
# program sees the whole batch, everything here does nothing.

import contextlib
import threading
from collections.abc import Iterator

import keras
from keras import ops

from libra_keras.typing import Tensor

_own = threading.local()  # replicas are traced in threads of their own


def sum_over_replicas(x: Tensor) -> Tensor:
    """Sums a tensor over all replicas; must not be called inside an island of `native.compiled`."""
    replica = _context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    import tensorflow as tf

    return replica.all_reduce(tf.distribute.ReduceOp.SUM, ops.convert_to_tensor(x))


def num_replicas() -> int:
    """Number of replicas of the TensorFlow strategy that this runs under; 1 elsewhere."""
    replica = _context()
    return 1 if replica is None else replica.num_replicas_in_sync


def global_positions(batch_size: int | Tensor) -> Tensor:
    """Positions of this replica's images in the global batch, int32 `(batch_size,)`."""
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


def with_global_value(losses: list[Tensor]) -> list[Tensor]:
    """Gives a replica's losses 1 / R of the sum over all, and leaves them their own gradient."""
    # Keras weighs what replicas report by their numbers of images: right if all report the same.
    count = num_replicas()
    if count == 1:
        return losses
    own = ops.stack(losses)
    total = sum_over_replicas(ops.stop_gradient(own))
    return ops.unstack(own + ops.stop_gradient(total / count - own), num=len(losses))


def with_an_image(x: Tensor, value: float = 0) -> Tensor:
    """Adds a row of `value` to a replica's part of a batch if it has none: CPUs need an image."""
    if num_replicas() == 1:
        return x
    shape = ops.shape(x)
    row = ops.full((1 - ops.minimum(shape[0], 1), *shape[1:]), value, dtype=x.dtype)
    return ops.concatenate([x, row], axis=0)


@contextlib.contextmanager
def counting(image_sizes: Tensor) -> Iterator[None]:
    """Within this context `presence` tells whether any image has a size, int `(B, 2)`, above 0."""
    if num_replicas() == 1:
        yield
        return
    before = getattr(_own, "presence", 1.0)
    _own.presence = ops.cast(ops.any(image_sizes > 0), "float32")
    try:
        yield
    finally:
        _own.presence = before


def presence() -> Tensor | float:
    """1 where the images of this replica count, 0 where there is a blank one alone."""
    return getattr(_own, "presence", 1.0)


def _context():
    """TensorFlow's replica context; `None` on other backends and in cross-replica context."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
