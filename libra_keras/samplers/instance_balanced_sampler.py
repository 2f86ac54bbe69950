"""Positives balanced over the objects that they belong to."""

import keras

from libra_keras.functional.sampling import choose_instance_balanced
from libra_keras.samplers.random_sampler import RandomSampler


@keras.saving.register_keras_serializable(package="libra_keras")
class InstanceBalancedSampler(RandomSampler):
    """Chooses positives evenly over the ground truths, and negatives at random.

    Large objects own many positives and small ones few. Here each object that owns a positive
    gives `round(wanted / owners) + 1` of them, or all it has; too many are trimmed at random, and
    too few are filled up at random.

    Args:
        num: int, the number of rows per image.
        positive_fraction: float in [0, 1], the largest share of positives.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `RandomSampler`.

    Call arguments and returns: as `RandomSampler`.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.samplers import InstanceBalancedSampler
    >>> overlaps = [[0.7, 0], [0.7, 0], [0.8, 0], [0.9, 0], [0, 0.6], [0.1, 0]]
    >>> found = match([overlaps], [[True, True]], 0.5, 0.5)  # one positive of object 1
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    >>> sampler = InstanceBalancedSampler(num=6, positive_fraction=0.5)
    >>> indices, is_positive, _ = sampler(found, keys)
    >>> 4 in ops.convert_to_numpy(indices)[0]
    True

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), and
    `InstanceBalancedPosSampler` of mmdetection. Differs from the latter: filling up never draws a
    box that was chosen already (there it does, and fewer than wanted remain).
    """

    def choose_positives(self, keys, is_positive, matched_gt, count):
        """Chooses up to `count` positives of each image, evenly over the ground truths.

        Args and returns: as `RandomSampler.choose_positives`.
        """
        return choose_instance_balanced(keys, is_positive, matched_gt, self.num, count)
