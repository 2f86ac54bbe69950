"""How many boxes a step has learnt from: shown beside the losses, since losses do not tell."""

from keras import ops

from libra_keras.functional.replicas import sum_over_replicas


def mean_per_image(chosen, present=None):
    """Returns the mean number of chosen boxes of an image, over the global batch.

    Args:
        chosen: bool or float `(B, N)`, which boxes count.
        present: float `(B,)`, 1 for images, and 0 for the blank one of a replica without images;
            `None` if all are images.

    Returns:
        float32 scalar, the same on all replicas.

    Example:

    >>> from libra_keras.models.counting import mean_per_image
    >>> float(mean_per_image([[True, True, False], [True, False, False]]))
    1.5
    """
    counts = ops.sum(ops.cast(chosen, "float32"), axis=1)
    present = ops.ones_like(counts) if present is None else present
    both = ops.stack([ops.sum(counts * present), ops.sum(present)])
    total, images = ops.unstack(sum_over_replicas(both), num=2)
    return total / ops.maximum(images, 1.0)
