"""Which ground truth, if any, each candidate box is responsible for."""

from typing import NamedTuple

from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor


class Match(NamedTuple):
    """Result of `match`. A candidate that is neither positive nor negative is ignored.

    Attributes:
        matched_gt: int32 `(B, N)`, index of a ground truth; meaningful where `is_positive`.
        max_iou: float32 `(B, N)`, the candidate's best overlap; 0 without ground truths.
        is_positive: bool `(B, N)`.
        is_negative: bool `(B, N)`.

    Example:

    >>> from libra_keras.functional.matching import Match
    >>> Match._fields
    ('matched_gt', 'max_iou', 'is_positive', 'is_negative')
    """

    matched_gt: Tensor
    max_iou: Tensor
    is_positive: Tensor
    is_negative: Tensor


def match(
    iou: Tensor,
    gt_mask: Tensor,
    positive_iou: float,
    negative_iou: float,
    min_positive_iou: float | None = None,
    candidate_mask: Tensor | None = None,
) -> Match:
    """Assigns candidates to ground truths by their overlap.

    A candidate is positive from `positive_iou` on, negative below `negative_iou`, and ignored
    between. With `min_positive_iou`, every ground truth also claims all candidates that tie for
    its best overlap, if that is at least `min_positive_iou` and above 0; where several ground
    truths claim one candidate, the last of them gets it.

    Args:
        iou: float tensor `(B, N, M)`, overlap of candidates and ground truths.
        gt_mask: bool tensor `(B, M)`, false for padding, which takes no part.
        positive_iou: float in 0..1, inclusive.
        negative_iou: float in 0..1, exclusive; at most `positive_iou`.
        min_positive_iou: float in 0..1, or `None` for no low-quality matches.
        candidate_mask: bool tensor `(B, N)` or `None`; candidates outside it (padding) are
            ignored and cannot be anyone's best.

    Returns:
        A `Match`. Without ground truths every candidate is negative.

    Raises:
        ValueError: if `negative_iou` exceeds `positive_iou`, or an argument has another shape or
            kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> result = match([[[0.8], [0.1], [0.4]]], [[True]], positive_iou=0.7, negative_iou=0.3)
    >>> [ops.convert_to_numpy(mask).tolist() for mask in (result.is_positive, result.is_negative)]
    [[[True, False, False]], [[False, True, False]]]

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497), section 3.1.2.
    Differs from mmdetection: a ground truth that overlaps nothing claims nothing. With
    `min_positive_iou=0` the reference gives it every candidate without overlap.
    """
    if negative_iou > positive_iou:
        raise ValueError(
            "`negative_iou` must not exceed `positive_iou`. Received: "
            f"negative_iou={negative_iou}, positive_iou={positive_iou}"
        )
    check_arguments(
        {
            "iou (B, N, M)": iou,
            "gt_mask (B, M) bool": gt_mask,
            "candidate_mask (B, N) bool": candidate_mask,
        }
    )
    iou, gt_mask = ops.cast(iou, "float32"), ops.cast(gt_mask, "bool")
    # -1 takes padding out of every maximum below, since real overlaps are at least 0.
    iou = ops.where(gt_mask[:, None, :], iou, -1.0)
    if not iou.shape[2]:  # none, or TensorFlow does not know: `argmax` of nothing would fail
        iou = ops.pad(iou, ((0, 0), (0, 0), (0, 1)), constant_values=-1.0)
    if candidate_mask is not None:
        iou = ops.where(ops.cast(candidate_mask, "bool")[:, :, None], iou, -1.0)
    max_iou = ops.max(iou, axis=2, initial=0.0)  # an initial value: there may be no candidate
    matched_gt = ops.cast(ops.argmax(iou, axis=2), "int32")
    is_positive, is_negative = max_iou >= positive_iou, max_iou < negative_iou
    if min_positive_iou is not None:
        claimed_by, is_claimed = _low_quality_matches(iou, min_positive_iou)
        matched_gt = ops.where(is_claimed, claimed_by, matched_gt)
        is_positive = ops.logical_or(is_positive, is_claimed)
        is_negative = ops.logical_and(is_negative, ops.logical_not(is_claimed))
    if candidate_mask is not None:
        is_positive = ops.logical_and(is_positive, candidate_mask)
        is_negative = ops.logical_and(is_negative, candidate_mask)
    return Match(matched_gt, max_iou, is_positive, is_negative)


def _low_quality_matches(iou, min_positive_iou):
    """Returns the last ground truth whose best overlap each candidate has, and whether any is."""
    best = ops.max(iou, axis=1, keepdims=True, initial=-1.0)  # (B, 1, M)
    # Above 0: otherwise an object that touches no candidate would claim all that miss it too.
    claims = ops.logical_and(best >= min_positive_iou, best > 0)
    is_best = ops.logical_and(iou == best, claims)  # (B, N, M)
    position = ops.arange(1, ops.shape(iou)[2] + 1, dtype="int32")
    last = ops.max(ops.where(is_best, position, 0), axis=2, initial=0)
    return last - 1, last > 0
