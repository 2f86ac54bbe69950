"""The base of all samplers, and the plain one."""

import abc
from typing import Any, Self

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import take_rows
from libra_keras.functional.matching import Match
from libra_keras.functional.sampling import choose_random, look_up
from libra_keras.ranges import NOT_NEGATIVE, SHARE, whole
from libra_keras.typing import Tensor

RANGES = {
    "num": whole(1), "positive_fraction": SHARE, "max_negatives_per_positive": NOT_NEGATIVE,
}  # fmt: skip


class Sampler(abc.ABC):
    """Chooses a fixed number of positives and negatives of each image: the base of all samplers.

    At most `int(num * positive_fraction)` positives are taken; negatives fill the rest. An image
    with too few candidates gives fewer rows, and padding. Subclasses override `choose_positives`
    and `choose_negatives`; those of `RandomSampler` one of them, or both.

    Args:
        num: int, the number of rows per image. `None` for a part of a `CombinedSampler`, which has
            the number; such a sampler cannot be called on its own. Defaults to `None`.
        positive_fraction: float in [0, 1], the largest share of positives, or `None` as above.
            Defaults to `None`.
        max_negatives_per_positive: `None` (no limit) or float >= 0. An image with p positives
            gives at most `int(max_negatives_per_positive * max(p, 1))` negatives.

    Call arguments:
        match: `Match` of B images and N boxes, from `functional.matching.match` or
            `from_box_matcher`.
        keys: float tensor `(B, N)` in [0, 1), from `functional.random_keys`.

    Or, in place of the `Match`, four tensors before the keys:
        max_iou: float tensor `(B, N)`, the largest IoU of each box with any ground truth, 0 for
            padding.
        matched_gt: int tensor `(B, N)`, the index of the ground truth that each positive belongs
            to; elsewhere any value.
        is_positive: bool tensor `(B, N)`.
        is_negative: bool tensor `(B, N)`. Boxes that are neither (ignored, padding) are never
            chosen.

    Returns:
        Tuple of `indices`, int32 `(B, num)`, into the N boxes; `is_positive`, bool `(B, num)`;
        `weights`, float32 `(B, num)`, 1 for a chosen box and 0 for padding. Positives come first,
        then negatives, then padding (index 0); no box comes twice.

    Raises:
        ValueError: if an argument is out of range, one of the call has another shape or kind, or
            the sampler is called without `num` or `positive_fraction`.

    Example: a sampler of the negatives with the largest overlap. The smallest keys are chosen.

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.functional.sampling import choose_random
    >>> from libra_keras.samplers import Sampler
    >>> class NearMisses(Sampler):
    ...     def choose_positives(self, keys, is_positive, matched_gt, num, count):
    ...         return choose_random(keys, is_positive, num, count)
    ...     def choose_negatives(self, keys, is_negative, max_iou, num, count):
    ...         return choose_random((1.0 - max_iou) / 2, is_negative, num, count)
    >>> found = match([[[0.8], [0.1], [0.3], [0.0], [0.2]]], [[True]], 0.5, 0.5)
    >>> keys = ops.convert_to_tensor([[0.9, 0.1, 0.5, 0.3, 0.2]])
    >>> indices, _, _ = NearMisses(num=3, positive_fraction=0.5)(found, keys)
    >>> ops.convert_to_numpy(indices)[0].tolist()
    [0, 2, 4]
    """

    needs_losses = False

    def __init__(
        self,
        num: int | None = None,
        positive_fraction: float | None = None,
        max_negatives_per_positive: float | None = None,
    ) -> None:
        self.num = num
        self.positive_fraction = positive_fraction
        self.max_negatives_per_positive = max_negatives_per_positive
        for name, within in RANGES.items():
            if getattr(self, name) is not None:
                setattr(self, name, within.check(f"`{name}`", getattr(self, name)))

    def __call__(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
        match, keys, losses = match_keys_losses(*arguments, **named)
        if losses is not None:
            raise TypeError(f"`{type(self).__name__}` takes no `losses`; `OHEMSampler` does.")
        num, wanted = self._numbers()
        positives, taken = self.choose_positives(
            keys, match.is_positive, match.matched_gt, num, wanted
        )
        num_positives = ops.sum(ops.cast(taken, "int32"), axis=1)
        wanted = self.num_negatives(num_positives)
        negatives, taken = self.choose_negatives(
            keys, match.is_negative, match.max_iou, num, wanted
        )
        num_negatives = ops.sum(ops.cast(taken, "int32"), axis=1)
        return _join(positives, num_positives, negatives, num_negatives)

    def _numbers(self) -> tuple[int, int]:
        """The number of rows, and of the positives that are wanted among them."""
        if self.num is None or self.positive_fraction is None:
            raise ValueError(
                f"`{type(self).__name__}` requires `num` and `positive_fraction` to be called on "
                "its own; without them it is part of a `CombinedSampler`. Received: "
                f"num={self.num}, positive_fraction={self.positive_fraction}"
            )
        return self.num, int(self.num * self.positive_fraction)

    @abc.abstractmethod
    def choose_positives(
        self, keys: Tensor, is_positive: Tensor, matched_gt: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` positives of each image.

        Args:
            keys, is_positive, matched_gt: `(B, N)`, as in the call.
            num: int, the number of rows per image, which fixes the shape of the result.
            count: int, or int32 tensor `(B,)`.

        Returns:
            Tuple of `indices`, int32 `(B, num)`, and `chosen`, bool `(B, num)`, a prefix.
        """

    @abc.abstractmethod
    def choose_negatives(
        self, keys: Tensor, is_negative: Tensor, max_iou: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` negatives of each image.

        Args:
            keys, is_negative, max_iou: `(B, N)`, as in the call.
            num: int, the number of rows per image, which fixes the shape of the result.
            count: int, or int32 tensor `(B,)`.

        Returns:
            Tuple of `indices`, int32 `(B, num)`, and `chosen`, bool `(B, num)`, a prefix.
        """

    def num_negatives(self, num_positives: Tensor) -> Tensor:
        """Returns how many negatives are wanted, int32 `(B,)`, beside `num_positives` `(B,)`."""
        num, _ = self._numbers()
        free = num - num_positives
        if self.max_negatives_per_positive is None:
            return free
        ratio = self.max_negatives_per_positive
        return ops.minimum(free, look_up(lambda n: int(ratio * max(n, 1)), num_positives, num))

    def get_config(self) -> dict[str, Any]:
        return {
            "num": self.num,
            "positive_fraction": self.positive_fraction,
            "max_negatives_per_positive": self.max_negatives_per_positive,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="libra_keras")
class RandomSampler(Sampler):
    """Chooses a fixed number of positives and negatives of each image at random.

    Args:
        num, positive_fraction: numbers, or `None` for a part of a `CombinedSampler`, see `Sampler`.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `Sampler`.

    Call arguments and returns: as `Sampler`.

    Raises:
        ValueError: if an argument is out of range, or one of the call has another shape or kind.

    Example: five boxes of one image, by their IoU with its one object.

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.samplers import RandomSampler
    >>> found = match([[[0.8], [0.1], [0.6], [0.0], [0.2]]], [[True]], 0.5, 0.5)
    >>> keys = ops.convert_to_tensor([[0.9, 0.1, 0.5, 0.3, 0.2]])
    >>> sampler = RandomSampler(num=4, positive_fraction=0.25)
    >>> indices, is_positive, weights = sampler(found, keys)
    >>> ops.convert_to_numpy(indices)[0].tolist(), ops.convert_to_numpy(is_positive)[0].tolist()
    ([2, 1, 4, 3], [True, False, False, False])

    Any matcher will do. `BoxMatcher` of KerasCV and KerasHub, for example with
    `thresholds=[0.4, 0.5]` and `match_values=[-1, -2, 1]`, returns `(matched_gt, matched_values)`;
    its `match` takes the overlaps, of which `max_iou` is the largest per box:

    >>> overlaps = ops.convert_to_tensor([[[0.8, 0.0], [0.1, 0.2], [0.45, 0.3], [0.0, 0.6]]])
    >>> matched_gt = ops.convert_to_tensor([[0, 1, 0, 1]])
    >>> matched_values = ops.convert_to_tensor([[1, -1, -2, 1]])
    >>> indices, is_positive, weights = RandomSampler(num=4, positive_fraction=0.5)(
    ...     ops.max(overlaps, axis=-1), matched_gt, matched_values == 1, matched_values == -1,
    ...     keys[:, :4])
    >>> ops.convert_to_numpy(indices)[0].tolist(), ops.convert_to_numpy(weights)[0].tolist()
    ([3, 0, 1, 0], [1.0, 1.0, 1.0, 0.0])

    Reference: `RandomSampler` and `BaseSampler` of mmdetection. Differs from them: rows are in
    random order inside their part, not sorted by index; ground truths become candidates only if
    the caller puts them among the boxes.
    """

    def choose_positives(
        self, keys: Tensor, is_positive: Tensor, matched_gt: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` positives of each image at random; see `Sampler`."""
        return choose_random(keys, is_positive, num, count)

    def choose_negatives(
        self, keys: Tensor, is_negative: Tensor, max_iou: Tensor, num: int, count: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chooses up to `count` negatives of each image at random; see `Sampler`."""
        return choose_random(keys, is_negative, num, count)


def check_sampler(
    sampler: Any, name: str = "sampler", gives_losses: bool = False, needs_num: bool = True
) -> None:
    """Raises unless a caller that gives losses, or none, can call the sampler; a part of another
    sampler needs no `num`."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"`{name}` must be a sampler. Received: {name}={sampler!r:.80}")
    if sampler.needs_losses and not gives_losses:
        raise TypeError(
            f"`{name}` must not require losses, which are not known here. "
            f"Received: {name}={type(sampler).__name__}"
        )
    if needs_num:
        sampler._numbers()


def match_keys_losses(*arguments, **named):
    """Returns `(match, keys, losses)` of a sampler's call in either form, checked."""
    by_match = "match" in named or isinstance(arguments[0] if arguments else None, Match)
    match, keys, losses = (_by_match if by_match else _by_tensors)(*arguments, **named)
    check_arguments(
        {
            "max_iou (B, N)": match.max_iou,
            "matched_gt (B, N) int": match.matched_gt,
            "is_positive (B, N) bool": match.is_positive,
            "is_negative (B, N) bool": match.is_negative,
            "keys (B, N) float": keys,
            "losses (B, N)": losses,
        }
    )
    return match, keys, losses


def _by_match(match, keys, losses=None):
    return match, keys, losses


def _by_tensors(max_iou, matched_gt, is_positive, is_negative, keys, losses=None):
    return Match(matched_gt, max_iou, is_positive, is_negative), keys, losses


def _join(positives, num_positives, negatives, num_negatives):
    """Puts the chosen positives of each row first, then the negatives, then padding."""
    num_positives = ops.expand_dims(num_positives, 1)
    total = num_positives + ops.expand_dims(num_negatives, 1)
    place = ops.expand_dims(ops.arange(positives.shape[1], dtype="int32"), 0)
    is_positive = place < num_positives
    shifted = take_rows(negatives, ops.maximum(place - num_positives, 0))
    indices = ops.where(is_positive, positives, shifted)
    real = place < total
    return ops.where(real, indices, 0), is_positive, ops.cast(real, "float32")
