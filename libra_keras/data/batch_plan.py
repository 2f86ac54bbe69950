"""Which images a run sees, in which order, and which of them are mirrored."""

import functools
import warnings

import numpy as np


class BatchPlan:
    """The order of a whole run as a pure function of a seed.

    In each epoch all images are shuffled anew. A batch holds images of one orientation only, so
    that all have one padded size; the batches of both orientations are mixed. What does not fill
    a batch is left out of that epoch, another few images each time, so every epoch has the same
    number of steps. Nothing is remembered: batch `s` of epoch `e` can be asked for at any time,
    which is how a run resumes and how an error names the files of a batch.

    Args:
        is_portrait: bool `(n,)`, the orientation of each image.
        batch_size: int, images per batch.
        seed: int. Defaults to 0.
        flip: float in [0, 1], the probability that an image is mirrored. Defaults to 0.5.

    Raises:
        ValueError: if there is not one full batch of either orientation, or `batch_size` or `flip`
            is out of its range.

    Example:

    >>> from libra_keras.data import BatchPlan
    >>> plan = BatchPlan([False] * 5 + [True] * 3, batch_size=2)
    >>> plan.steps_per_epoch, plan.batches(epoch=4).shape
    (3, (3, 2))
    """

    def __init__(self, is_portrait, batch_size, seed=0, flip=0.5):
        if batch_size < 1 or not 0 <= flip <= 1:
            raise ValueError(
                "`batch_size` must be at least 1 and `flip` in 0..1. "
                f"Received: batch_size={batch_size}, flip={flip}"
            )
        self.is_portrait = np.asarray(is_portrait, bool)
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        counts = [int(np.sum(self.is_portrait == kind)) for kind in (False, True)]
        self.steps_per_epoch = sum(count // batch_size for count in counts)
        if not self.steps_per_epoch:
            raise ValueError(
                f"No batch of {batch_size} images of one orientation can be made. "
                f"Received: {counts[0]} landscape and {counts[1]} portrait images"
            )
        for count, kind in zip(counts, ("landscape", "portrait"), strict=True):
            if 0 < count < batch_size:
                warnings.warn(
                    f"the {count} {kind} image(s) are never used: they do not fill a batch of "
                    f"{batch_size}",
                    stacklevel=2,
                )
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def batches(self, epoch):
        """Returns int64 `(steps_per_epoch, batch_size)`: the images of each batch of an epoch."""
        return self._epoch(epoch)[0]

    def flips(self, epoch):
        """Returns bool `(steps_per_epoch, batch_size)`: which of them are mirrored."""
        return self._epoch(epoch)[1]

    def _draw_epoch(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.is_portrait))
        batches = np.concatenate([self._full(order[self.is_portrait[order] == k]) for k in (0, 1)])
        batches = rng.permutation(batches)
        return batches, rng.random(batches.shape) < self.flip

    def _full(self, order):
        return order[: len(order) // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
