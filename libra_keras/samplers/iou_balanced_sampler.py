"""Negatives balanced over their overlap with the ground truth."""

import operator

import keras

from libra_keras.functional.sampling import choose_iou_balanced
from libra_keras.samplers.random_sampler import RandomSampler, check_range

PRESETS = {
    "mmdet": {"upper": "all", "include_zero": False},
    "paper_code": {"upper": "all", "include_zero": True},
    "paper_text": {"upper": 0.5, "include_zero": True},
}


@keras.saving.register_keras_serializable(package="libra_keras")
class IoUBalancedSampler(RandomSampler):
    """Chooses negatives evenly over bins of IoU, and positives at random.

    Most boxes touch no object, so uniform sampling hardly ever shows the hard negatives that
    overlap one. Here each of `num_bins` bins of IoU gives an equal share as far as it can.

    `IoUBalancedSampler.preset(name, num, positive_fraction)` gives three known variants:
    `"mmdet"`, what the published models of mmdetection were trained with (bins up to the largest
    IoU of the image, which is 1 once ground truths are candidates; boxes of IoU 0 only as a last
    resort); `"paper_code"`, the code released with the paper (the same bins, IoU 0 in the first);
    `"paper_text"`, what the paper's text and Fig. 3 show (bins up to 0.5, IoU 0 in the first).

    Args:
        num: int, the number of rows per image.
        positive_fraction: float in [0, 1], the largest share of positives.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `RandomSampler`.
        num_bins: int, the number of bins; 1 means uniform. Defaults to 3.
        upper: where the last bin ends: `"all"`, the largest IoU of any box of the image;
            `"negatives"`, the largest of the negatives; or a float. With bins up to 1 and
            negatives below 0.5 the last of three bins is empty, and uniform draws fill its share.
        include_zero: bool, whether boxes of IoU 0 are in the first bin. Otherwise they are taken
            only when the others do not suffice.
        floor_thr: float in [0, 1). Negatives below it are kept out of the bins.
        floor_fraction: float in [0, 1], the share of negatives taken from below `floor_thr` (or
            of IoU 0, without `include_zero`).

    Call arguments and returns: as `RandomSampler`.

    Raises:
        ValueError: if an argument is out of range, or a preset is unknown.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.samplers import IoUBalancedSampler
    >>> found = match([[[0.8], [0.0], [0.05], [0.1], [0.2], [0.4]]], [[True]], 0.5, 0.5)
    >>> keys = ops.convert_to_tensor([[0.7, 0.1, 0.2, 0.3, 0.4, 0.5]])
    >>> sampler = IoUBalancedSampler.preset("paper_text", num=4, positive_fraction=0.25)
    >>> indices, _, _ = sampler(found, keys)
    >>> sorted(ops.convert_to_numpy(indices)[0].tolist())
    [0, 1, 4, 5]

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 3.1. Differs from
    mmdetection: the object never changes itself (there `floor_thr=-1` becomes 0 on the first
    call); say `include_zero=True` for -1.
    """

    def __init__(
        self,
        num,
        positive_fraction,
        max_negatives_per_positive=None,
        num_bins=3,
        upper="all",
        include_zero=False,
        floor_thr=0.0,
        floor_fraction=0.0,
    ):
        super().__init__(num, positive_fraction, max_negatives_per_positive)
        self.num_bins = operator.index(num_bins)
        self.upper = upper
        self.include_zero = bool(include_zero)
        self.floor_thr = floor_thr
        self.floor_fraction = floor_fraction
        self._check()

    def _check(self):
        check_range("num_bins", self.num_bins, 1)
        check_range("floor_fraction", self.floor_fraction, 0, 1)
        if not 0 <= self.floor_thr < 1:
            raise ValueError(
                "`floor_thr` must be at least 0 and below 1 (for mmdetection's -1, say "
                f"`include_zero=True`). Received: floor_thr={self.floor_thr}"
            )
        if isinstance(self.upper, str):
            if self.upper not in ("all", "negatives"):
                raise ValueError(
                    '`upper` must be "all", "negatives" or a number. '
                    f"Received: upper={self.upper!r}"
                )
        elif not self.floor_thr < self.upper <= 1:
            raise ValueError(
                "`upper` must be above `floor_thr` and at most 1. "
                f"Received: upper={self.upper}, floor_thr={self.floor_thr}"
            )

    @classmethod
    def preset(cls, name, num, positive_fraction, max_negatives_per_positive=None):
        """Builds `"mmdet"`, `"paper_code"` or `"paper_text"`, see the class.

        Args:
            name: str, one of the three.
            num, positive_fraction, max_negatives_per_positive: as in the constructor.

        Returns:
            An `IoUBalancedSampler`.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"The preset must be one of {list(PRESETS)}. Received: name={name!r}")
        return cls(num, positive_fraction, max_negatives_per_positive, **PRESETS[name])

    def choose_negatives(self, keys, is_negative, max_iou, count):
        """Chooses up to `count` negatives of each image, evenly over bins of IoU.

        Args and returns: as `RandomSampler.choose_negatives`.
        """
        return choose_iou_balanced(
            keys,
            is_negative,
            max_iou,
            self.num,
            count,
            floor_thr=self.floor_thr,
            floor_fraction=self.floor_fraction,
            num_bins=self.num_bins,
            upper=self.upper,
            include_zero=self.include_zero,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "upper": self.upper,
            "include_zero": self.include_zero,
            "floor_thr": self.floor_thr,
            "floor_fraction": self.floor_fraction,
        }
