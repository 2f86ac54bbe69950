"""Positives from one sampler, negatives from another."""

import keras

from libra_keras.samplers.instance_balanced_sampler import InstanceBalancedSampler
from libra_keras.samplers.iou_balanced_sampler import IoUBalancedSampler
from libra_keras.samplers.random_sampler import RandomSampler


@keras.saving.register_keras_serializable(package="libra_keras")
class CombinedSampler(RandomSampler):
    """Takes the positives of one sampler and the negatives of another.

    `CombinedSampler.preset("mmdet")` is the sampler of Libra R-CNN's second stage:
    instance-balanced positives and IoU-balanced negatives.

    Args:
        positives: sampler whose `choose_positives` is used.
        negatives: sampler whose `choose_negatives` is used.
        num: int, the number of rows per image; both samplers must have the same.
        positive_fraction: float in [0, 1], the largest share of positives. The shares and limits
            of the two samplers do not count.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `RandomSampler`.

    Call arguments and returns: as `RandomSampler`.

    Raises:
        ValueError: if an argument is out of range, or a sampler has another `num`.
        TypeError: if `positives` or `negatives` is not a sampler, or one that needs losses.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.samplers import CombinedSampler
    >>> found = match([[[1.0], [0.7], [0.0], [0.1], [0.4]]], [[True]], 0.5, 0.5)
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    >>> sampler = CombinedSampler.preset("mmdet", num=4, positive_fraction=0.5)
    >>> indices, _, _ = sampler(found, keys)
    >>> sorted(ops.convert_to_numpy(indices)[0].tolist())
    [0, 1, 3, 4]

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701); `CombinedSampler` of
    mmdetection.
    """

    def __init__(
        self, positives, negatives, num, positive_fraction, max_negatives_per_positive=None
    ):
        super().__init__(num, positive_fraction, max_negatives_per_positive)
        self.positives = positives
        self.negatives = negatives
        for name, part in (("positives", positives), ("negatives", negatives)):
            if not isinstance(part, RandomSampler):
                raise TypeError(f"`{name}` must be a sampler. Received: {name}={part!r}")
            if getattr(part, "needs_losses", False):
                raise TypeError(
                    f"`{name}` must not need losses, which a combination does not pass on. "
                    f"Received: {name}={type(part).__name__}"
                )
            if part.num != self.num:
                raise ValueError(
                    f"`{name}` must have the same `num` as the combination. "
                    f"Received: {name}.num={part.num}, num={self.num}"
                )

    @classmethod
    def preset(cls, name, num=512, positive_fraction=0.25, max_negatives_per_positive=None):
        """Builds Libra R-CNN's sampler with the negatives of `IoUBalancedSampler.preset(name)`.

        Args:
            name: `"mmdet"`, `"paper_code"` or `"paper_text"`.
            num: int, the number of rows per image. Defaults to 512, as in the paper.
            positive_fraction: float, the largest share of positives. Defaults to 0.25.
            max_negatives_per_positive: as in the constructor.

        Returns:
            A `CombinedSampler`.

        Raises:
            ValueError: if there is no such preset.
        """
        positives = InstanceBalancedSampler(num, positive_fraction)
        negatives = IoUBalancedSampler.preset(name, num, positive_fraction)
        return cls(positives, negatives, num, positive_fraction, max_negatives_per_positive)

    def choose_positives(self, keys, is_positive, matched_gt, count):
        """Chooses positives as `positives` does."""
        return self.positives.choose_positives(keys, is_positive, matched_gt, count)

    def choose_negatives(self, keys, is_negative, max_iou, count):
        """Chooses negatives as `negatives` does."""
        return self.negatives.choose_negatives(keys, is_negative, max_iou, count)

    def get_config(self):
        return {
            "positives": keras.saving.serialize_keras_object(self.positives),
            "negatives": keras.saving.serialize_keras_object(self.negatives),
            **super().get_config(),
        }

    @classmethod
    def from_config(cls, config):
        parts = {name: config[name] for name in ("positives", "negatives")}
        parts = {
            name: keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
            for name, part in parts.items()
        }
        return cls(**{**config, **parts})
