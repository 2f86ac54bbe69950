"""Which images make the batches of each epoch, and which of them are mirrored and turned."""

import functools
import warnings

import numpy as np
from numpy.typing import ArrayLike

from libra_keras.data.random_streams import TURNS, stream


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
        quarter_turns: float in [0, 1], the probability that an image is turned by 0 to 3 quarter
            turns. Turned images are in batches of the orientation that they have then; as many
            batches are full as the images make, for which less than a batch of them is turned
            otherwise than drawn. Defaults to 0.
        is_square: bool `(n,)`, the images that are landscape however they are turned. Defaults to
            none of them.

    Raises:
        ValueError: if there is not one full batch of either orientation, or `batch_size`, `flip`
            or `quarter_turns` is out of its range.

    Example:

    >>> from libra_keras.data import BatchPlan
    >>> plan = BatchPlan([False] * 5 + [True] * 3, batch_size=2)
    >>> plan.steps_per_epoch, plan.batches(epoch=4).shape
    (3, (3, 2))
    """

    def __init__(
        self,
        is_portrait: ArrayLike,
        batch_size: int,
        seed: int = 0,
        flip: float = 0.5,
        quarter_turns: float = 0.0,
        is_square: ArrayLike | None = None,
    ):
        if batch_size < 1 or not 0 <= flip <= 1 or not 0 <= quarter_turns <= 1:
            raise ValueError(
                "`batch_size` must be at least 1, `flip` and `quarter_turns` in 0..1. Received: "
                f"batch_size={batch_size}, flip={flip}, quarter_turns={quarter_turns}"
            )
        self.is_portrait = np.asarray(is_portrait, bool)
        is_square = np.zeros_like(self.is_portrait) if is_square is None else np.asarray(is_square)
        self._is_portrait_turned = ~self.is_portrait & ~is_square
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.quarter_turns = quarter_turns
        counts = [int(np.sum(self.is_portrait == kind)) for kind in (False, True)]
        if quarter_turns:  # see `_draw_turns`
            self.steps_per_epoch = sum(counts) // batch_size
        else:
            self.steps_per_epoch = sum(count // batch_size for count in counts)
        if not self.steps_per_epoch:
            raise ValueError(
                f"No batch of {batch_size} images of one orientation can be made. "
                f"Received: {counts[0]} landscape and {counts[1]} portrait images"
            )
        for count, kind in zip(counts, ("landscape", "portrait"), strict=True):
            if 0 < count < batch_size and not quarter_turns:
                warnings.warn(
                    f"the {count} {kind} image(s) are never used: they do not fill a batch of "
                    f"{batch_size}",
                    stacklevel=2,
                )
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def batches(self, epoch: int) -> np.ndarray:
        """Returns int64 `(steps_per_epoch, batch_size)`: the images of each batch of an epoch."""
        return self._epoch(epoch)[0]

    def flips(self, epoch: int) -> np.ndarray:
        """Returns bool `(steps_per_epoch, batch_size)`: which of them are mirrored."""
        return self._epoch(epoch)[1]

    def turns(self, epoch: int) -> np.ndarray:
        """Returns int64 `(steps_per_epoch, batch_size)`: their quarter turns, 0 to 3."""
        return self._epoch(epoch)[2]

    def turned(self, turns: ArrayLike) -> np.ndarray:
        """Returns bool `(n,)`: which images are portrait after so many quarter turns."""
        return np.where(np.asarray(turns) % 2, self._is_portrait_turned, self.is_portrait)

    def _draw_epoch(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.is_portrait))
        turns = self._draw_turns(epoch, order)
        is_portrait = self.turned(turns)
        batches = np.concatenate([self._full(order[is_portrait[order] == k]) for k in (0, 1)])
        batches = rng.permutation(batches)
        return batches, rng.random(batches.shape) < self.flip, turns[batches]

    def _draw_turns(self, epoch, order):
        """Draws the quarter turns of all images, so that an epoch has its number of batches."""
        turns = np.zeros(len(order), "int64")
        if not self.quarter_turns:
            return turns
        rng = stream(self.seed, TURNS, epoch)
        drawn = rng.integers(0, 4, len(order))
        turns = np.where(rng.random(len(order)) < self.quarter_turns, drawn, turns)
        is_portrait = self.turned(turns)[order]
        landscape, portrait = order[~is_portrait], order[is_portrait]
        # What is left over of both orientations may make a batch; no portrait image is square.
        missing, spare = -len(landscape) % self.batch_size, len(portrait) % self.batch_size
        if 0 < missing <= spare:
            turned = portrait[len(portrait) - missing :]
            turns[turned] = (turns[turned] + 1) % 4
        return turns

    def _full(self, order):
        return order[: len(order) // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
