"""Libra R-CNN's samplers: positives balanced over objects, negatives over overlaps, and both."""

from typing import Any, Self

import keras

from libra_keras.functional.sampling import choose_instance_balanced, choose_iou_balanced
from libra_keras.ranges import FINITE, SHARE, whole
from libra_keras.samplers.sampler import RandomSampler, Sampler, check_sampler
from libra_keras.typing import Tensor

PRESETS: dict[str, dict[str, Any]] = {
    "mmdet": {"upper": "all", "include_zero": False},
    "paper_code": {"upper": "all", "include_zero": True},
    "paper_text": {"upper": 0.5, "include_zero": True},
}


@keras.saving.register_keras_serializable(package="libra_keras")
class InstanceBalancedSampler(RandomSampler):
    """Chooses positives evenly over the ground truths, and negatives at random.

    Large objects own many positives and small ones few. Here each object that owns a positive
    gives `round(wanted / owners) + 1` of them, or all it has; too many are trimmed at random, and
    too few are filled up at random.

    Args:
        num, positive_fraction: numbers, or `None` for a part of a `CombinedSampler`, see `Sampler`.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `Sampler`.

    Call arguments and returns: as `Sampler`.

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
    box that was chosen already (there it does, so fewer than wanted remain).
    """

    def choose_positives(
        self, keys: Tensor, is_positive: Tensor, matched_gt: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` positives of each image, evenly over objects; see `Sampler`."""
        return choose_instance_balanced(keys, is_positive, matched_gt, num, count)


@keras.saving.register_keras_serializable(package="libra_keras")
class IoUBalancedSampler(RandomSampler):
    """Chooses negatives evenly over bins of IoU, and positives at random.

    Most boxes touch no object, so uniform sampling hardly ever shows the hard negatives that
    overlap one. Here each of `num_bins` bins of IoU gives an equal share as far as it can.

    `IoUBalancedSampler.preset(name, num, positive_fraction)` gives three known variants, for use in
    a `CombinedSampler` without the numbers: `"mmdet"`, with which mmdetection's published models
    were trained (bins up to the largest IoU of the image, which is 1 once ground truths are
    candidates; boxes of IoU 0 only as a last resort); `"paper_code"`, the code released with the
    paper (the same bins, IoU 0 in the first); `"paper_text"`, what the paper's text and Fig. 3 show
    (bins up to 0.5, IoU 0 in the first).

    Args:
        num, positive_fraction: numbers, or `None` for a part of a `CombinedSampler`, see `Sampler`.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `Sampler`.
        num_bins: int, the number of bins; 1 means uniform. Defaults to 3.
        upper: where the last bin ends: `"all"`, the largest IoU of any box of the image;
            `"negatives"`, the largest of the negatives; or a float. With bins up to 1 and
            negatives below 0.5 the last of three bins is empty, and uniform draws fill its share.
        include_zero: bool, whether boxes of IoU 0 are in the first bin. Otherwise they are taken
            only if the others do not suffice.
        floor_thr: float in [0, 1). Negatives below it are kept out of the bins.
        floor_fraction: float in [0, 1], the share of negatives taken from below `floor_thr` (or
            of IoU 0, without `include_zero`).

    Call arguments and returns: as `Sampler`.

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
    mmdetection, where `floor_thr=-1` becomes 0 on the first call: here the object never changes
    itself; pass `include_zero=True` for -1.
    """

    def __init__(
        self,
        num: int | None = None,
        positive_fraction: float | None = None,
        max_negatives_per_positive: float | None = None,
        num_bins: int = 3,
        upper: str | float = "all",
        include_zero: bool = False,
        floor_thr: float = 0.0,
        floor_fraction: float = 0.0,
    ) -> None:
        super().__init__(num, positive_fraction, max_negatives_per_positive)
        self.num_bins = whole(1).check("`num_bins`", num_bins)
        self.upper = upper
        self.include_zero = bool(include_zero)
        self.floor_thr = floor_thr
        self.floor_fraction = SHARE.check("`floor_fraction`", floor_fraction)
        self._check()

    def _check(self):
        self.floor_thr = FINITE.check("`floor_thr`", self.floor_thr)
        if not isinstance(self.upper, str):
            self.upper = FINITE.check("`upper`", self.upper)
        if not 0 <= self.floor_thr < 1:
            raise ValueError(
                "`floor_thr` must be at least 0 and below 1 (for mmdetection's -1, pass "
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
    def preset(
        cls,
        name: str,
        num: int | None = None,
        positive_fraction: float | None = None,
        max_negatives_per_positive: float | None = None,
    ) -> Self:
        """Builds `"mmdet"`, `"paper_code"` or `"paper_text"`; see the class.

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

    def choose_negatives(
        self, keys: Tensor, is_negative: Tensor, max_iou: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` negatives of each image, evenly over bins of IoU; see `Sampler`."""
        return choose_iou_balanced(
            keys,
            is_negative,
            max_iou,
            num,
            count,
            floor_thr=self.floor_thr,
            floor_fraction=self.floor_fraction,
            num_bins=self.num_bins,
            upper=self.upper,
            include_zero=self.include_zero,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "upper": self.upper,
            "include_zero": self.include_zero,
            "floor_thr": self.floor_thr,
            "floor_fraction": self.floor_fraction,
        }


@keras.saving.register_keras_serializable(package="libra_keras")
class CombinedSampler(Sampler):
    """Takes the positives of one sampler and the negatives of another.

    The combination has the numbers, and the two samplers need none:
    `CombinedSampler(InstanceBalancedSampler(), IoUBalancedSampler(), 512, 0.25)`, which is
    `CombinedSampler.preset("mmdet")`, the sampler of Libra R-CNN's second stage.

    Args:
        positives: sampler whose `choose_positives` is used.
        negatives: sampler whose `choose_negatives` is used.
        num: int, the number of rows per image. If a sampler has it too, it must be the same.
        positive_fraction: float in [0, 1], the largest share of positives. The shares and limits of
            the two samplers are ignored.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `Sampler`.

    Call arguments and returns: as `Sampler`.

    Raises:
        ValueError: if an argument is out of range, or a sampler has another `num`.
        TypeError: if `positives` or `negatives` is not a sampler, or is one that requires losses.

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
        self,
        positives: Sampler,
        negatives: Sampler,
        num: int,
        positive_fraction: float,
        max_negatives_per_positive: float | None = None,
    ) -> None:
        super().__init__(num, positive_fraction, max_negatives_per_positive)
        self.positives = positives
        self.negatives = negatives
        for name, part in (("positives", positives), ("negatives", negatives)):
            check_sampler(part, name, needs_num=False)
            if part.num not in (None, self.num):
                raise ValueError(
                    f"`{name}` must have the same `num` as the combination. "
                    f"Received: {name}.num={part.num}, num={self.num}"
                )

    @classmethod
    def preset(
        cls,
        name: str,
        num: int = 512,
        positive_fraction: float = 0.25,
        max_negatives_per_positive: float | None = None,
    ) -> Self:
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
        parts = InstanceBalancedSampler(), IoUBalancedSampler.preset(name)
        return cls(*parts, num, positive_fraction, max_negatives_per_positive)

    def choose_positives(
        self, keys: Tensor, is_positive: Tensor, matched_gt: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses positives as `positives` does."""
        return self.positives.choose_positives(keys, is_positive, matched_gt, num, count)

    def choose_negatives(
        self, keys: Tensor, is_negative: Tensor, max_iou: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses negatives as `negatives` does."""
        return self.negatives.choose_negatives(keys, is_negative, max_iou, num, count)

    def get_config(self) -> dict[str, Any]:
        return {
            "positives": keras.saving.serialize_keras_object(self.positives),
            "negatives": keras.saving.serialize_keras_object(self.negatives),
            **super().get_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        parts = {name: config[name] for name in ("positives", "negatives")}
        parts = {
            name: keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
            for name, part in parts.items()
        }
        return cls(**{**config, **parts})
