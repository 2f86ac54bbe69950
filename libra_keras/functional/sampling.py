"""Choosing a fixed number of candidates per image: at random, balanced, or the hardest.

Every choice is made by ranks of keys: counts are exact, shapes are fixed, no image is treated in a
loop, and nothing is remembered between calls.
"""

from collections.abc import Callable

from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import take, take_rows
from libra_keras.functional.random_keys import renew
from libra_keras.functional.ranking import top_k
from libra_keras.typing import Tensor

_NO_GROUP = 2**31 - 1
_STEP = 2.0**-24  # keys are multiples of it


def choose_random(
    keys: Tensor, candidates: Tensor, num: int, count: int | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Chooses candidates of each image uniformly, without repetition.

    Args:
        keys: float32 tensor `(B, N)` in [0, 1), see `random_keys`; the smallest are chosen, and
            equal ones in the order of their index.
        candidates: bool tensor `(B, N)`.
        num: int, the largest number chosen per image, which fixes the shape of the result.
        count: `None` or int tensor `(B,)` or scalar, the number wanted. Defaults to `num`.

    Returns:
        Tuple of `indices`, int32 `(B, num)` (0 where nothing was chosen), and `chosen`, bool
        `(B, num)`, true for the first `min(count, candidates of the image)` entries of a row.

    Raises:
        ValueError: if `num` is less than 1, or an argument has another shape or kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import choose_random
    >>> keys = ops.convert_to_tensor([[0.9, 0.1, 0.5, 0.3]])
    >>> candidates = ops.convert_to_tensor([[True, True, True, False]])
    >>> indices, chosen = choose_random(keys, candidates, num=4, count=2)
    >>> ops.convert_to_numpy(indices).tolist(), ops.convert_to_numpy(chosen).tolist()
    ([[1, 2, 0, 0]], [[True, True, False, False]])

    Source: `RandomSampler` of mmdetection.
    """
    check_arguments({"keys (B, N) float": keys, "candidates (B, N) bool": candidates})
    return _first(_scores(keys, ops.cast(candidates, "int32")), num, _column(count, num))


def choose_iou_balanced(
    keys: Tensor,
    candidates: Tensor,
    max_iou: Tensor,
    num: int,
    count: int | Tensor | None = None,
    *,
    floor_thr: float = 0.0,
    floor_fraction: float = 0.0,
    num_bins: int = 3,
    upper: str | float = "all",
    include_zero: bool = False,
) -> tuple[Tensor, Tensor]:
    """Chooses negatives evenly over their overlap with the ground truth.

    Uniform sampling takes mostly negatives that touch no object. Here the range of IoU is cut
    into bins of equal width, and each gives `count // num_bins` candidates, or all it has; what is
    then missing is drawn uniformly from the rest, at last from the floor.

    Args:
        keys: float32 tensor `(B, N)` in [0, 1), see `random_keys`.
        candidates: bool tensor `(B, N)`, the negatives.
        max_iou: float tensor `(B, N)` in [0, 1], the largest IoU of each box with any ground
            truth. Boxes that are not candidates count for `upper="all"`; padding has 0.
        num: int, the largest number chosen per image, which fixes the shape of the result.
        count: `None` or int tensor `(B,)` or scalar, the number wanted. Defaults to `num`.
        floor_thr: float in [0, 1). Candidates below it are the floor, outside the bins.
        floor_fraction: float in [0, 1], the share of `count` that is kept for the floor.
        num_bins: int, the number of bins; 1 means uniform.
        upper: where the last bin ends: `"all"`, the largest `max_iou` of the image (1 if the
            ground truth is among the boxes); `"negatives"`, the largest of the candidates, which
            the last bin then includes; or a float. Candidates beyond it are in no bin.
        include_zero: bool, whether candidates of IoU 0 are in the first bin. Otherwise they belong
            to the floor, as with any `floor_thr` > 0.

    Returns:
        Tuple of `indices`, int32 `(B, num)` (0 where nothing was chosen), and `chosen`, bool
        `(B, num)`, true for the first `min(count, candidates of the image)` entries of a row.

    Raises:
        ValueError: if `num` or `num_bins` is less than 1, or an argument has another shape or
            kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import choose_iou_balanced
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    >>> max_iou = ops.convert_to_tensor([[0.0, 0.05, 0.1, 0.2, 0.4]])
    >>> indices, _ = choose_iou_balanced(
    ...     keys, max_iou < 0.5, max_iou, num=3, upper=0.5, include_zero=True)
    >>> sorted(ops.convert_to_numpy(indices)[0].tolist())
    [0, 3, 4]

    Source: Pang et al., 2019, section 3.1, IoU-balanced sampling. Differs from mmdetection, where
    `floor_thr=-1` (here `include_zero=True`) becomes 0 on the first call: here no option changes.
    """
    _check_at_least_one("num_bins", num_bins)
    check_arguments(
        {"keys (B, N) float": keys, "candidates (B, N) bool": candidates, "max_iou (B, N)": max_iou}
    )
    max_iou = ops.cast(max_iou, "float32")
    count = _column(count, num)
    is_floor = max_iou < floor_thr if include_zero or floor_thr > 0 else max_iou <= 0.0
    pool = ops.logical_and(candidates, ops.logical_not(is_floor))
    floor = ops.logical_and(candidates, is_floor)

    from_pool = look_up(lambda n: int(n * (1 - floor_fraction)), count, num)
    balanced = ops.zeros_like(pool)
    for in_bin in _bins(max_iou, candidates, floor_thr, upper, num_bins):
        scores = _scores(keys, ops.cast(ops.logical_and(pool, in_bin), "int32"))
        picked = _first_mask(scores, max(num // num_bins, 1), from_pool // num_bins)
        balanced = ops.logical_or(balanced, picked)

    # What is ranked once more needs new keys: the bins have left over only large old ones.
    fresh = renew(keys, 1)
    order = ops.cast(pool, "int32") + ops.cast(balanced, "int32")
    if floor_fraction > 0:  # the pool's share, then the floor, then the rest of the pool
        share = _first_mask(_scores(fresh, order), num, from_pool)
        order = ops.where(share, 3, ops.where(floor, 2, ops.cast(pool, "int32")))
    else:  # the bins, then the rest of the pool, then the floor
        order = order + ops.cast(candidates, "int32")
    return _first(_scores(fresh, order), num, count)


def choose_instance_balanced(
    keys: Tensor,
    candidates: Tensor,
    matched_gt: Tensor,
    num: int,
    count: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Chooses positives evenly over the ground truths that they belong to.

    Large objects own many positives. Here each owner gives `round(count / owners) + 1` at random,
    or all it has; more than `count` are trimmed, and fewer are filled up, both at random.

    Args:
        keys: float32 tensor `(B, N)` in [0, 1), see `random_keys`.
        candidates: bool tensor `(B, N)`, the positives.
        matched_gt: int tensor `(B, N)`, the ground truth of each candidate, at least 0.
        num: int, the largest number chosen per image, which fixes the shape of the result.
        count: `None` or int tensor `(B,)` or scalar, the number wanted. Defaults to `num`.

    Returns:
        Tuple of `indices`, int32 `(B, num)` (0 where nothing was chosen), and `chosen`, bool
        `(B, num)`, true for the first `min(count, candidates of the image)` entries of a row.

    Raises:
        ValueError: if `num` is less than 1, or an argument has another shape or kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import choose_instance_balanced
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    >>> owners = ops.convert_to_tensor([[0, 0, 0, 0, 0, 1]])
    >>> indices, _ = choose_instance_balanced(keys, owners >= 0, owners, num=3)
    >>> 5 in ops.convert_to_numpy(indices)[0]  # two of the first owner, one of the second
    True

    Source: Pang et al., 2019, and `InstanceBalancedPosSampler` of mmdetection. Differs from the
    latter: filling up never repeats a candidate (there, repetitions are dropped afterwards, so that
    fewer than `count` remain).
    """
    check_arguments(
        {
            "keys (B, N) float": keys,
            "candidates (B, N) bool": candidates,
            "matched_gt (B, N) int": matched_gt,
        }
    )
    count = _column(count, num)
    group = ops.where(candidates, ops.cast(matched_gt, "int32"), _NO_GROUP)
    order, group, rank, is_first = _rank_in_group(keys, group)
    real = group != _NO_GROUP
    owners = ops.sum(ops.cast(ops.logical_and(is_first, real), "int32"), axis=1, keepdims=True)
    quota = _round_half_even(count, ops.maximum(owners, 1)) + 1
    balanced = ops.logical_and(real, rank < quota)

    fresh = renew(take_rows(keys, order), 1)
    scores = _scores(fresh, ops.cast(real, "int32") + ops.cast(balanced, "int32"))
    places, chosen = _first(scores, num, count)
    order = ops.pad(order, [[0, 0], [0, 1]])  # something to gather from, even without candidates
    return ops.where(chosen, take_rows(order, places), 0), chosen


def hardest_first(keys: Tensor, losses: Tensor) -> Tensor:
    """Makes keys that rank candidates by their loss, largest first, and equal losses as `keys` do.

    Whatever chooses the smallest of random keys chooses the hardest candidates by these.

    Args:
        keys: float32 tensor `(B, N)` in [0, 1), see `random_keys`.
        losses: float tensor `(B, N)`. NaN counts as infinite.

    Returns:
        Float32 tensor `(B, N)` in [0, 1): multiples of 2**-24, all different in a row.

    Raises:
        ValueError: if an argument has another shape, or holds no numbers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import hardest_first
    >>> keys = ops.convert_to_tensor([[0.4, 0.3, 0.2, 0.1]])
    >>> ranks = hardest_first(keys, ops.convert_to_tensor([[5.0, 1.0, 7.0, 5.0]])) * 2**24
    >>> ops.convert_to_numpy(ranks)[0].tolist()
    [2.0, 3.0, 0.0, 1.0]
    """
    check_arguments({"keys (B, N) float": keys, "losses (B, N)": losses})
    losses = ops.cast(losses, "float32")
    losses = ops.where(ops.isnan(losses), float("inf"), losses)
    by_key = ops.argsort(keys, axis=1)
    by_loss = ops.argsort(-take_rows(losses, by_key), axis=1)  # a stable sort
    order = take_rows(by_key, by_loss)
    return ops.cast(ops.argsort(order, axis=1), "float32") * _STEP  # the inverse permutation


def choose_hardest(
    keys: Tensor, losses: Tensor, candidates: Tensor, num: int, count: int | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Chooses the candidates of largest loss of each image.

    Args:
        keys: float32 tensor `(B, N)` in [0, 1), see `random_keys`; of candidates of equal loss,
            those of the smallest keys are chosen.
        losses: float tensor `(B, N)`. NaN counts as infinite.
        candidates: bool tensor `(B, N)`.
        num: int, the largest number chosen per image, which fixes the shape of the result.
        count: `None` or int tensor `(B,)` or scalar, the number wanted. Defaults to `num`.

    Returns:
        Tuple of `indices`, int32 `(B, num)` (0 where nothing was chosen), hardest first, and
        `chosen`, bool `(B, num)`, true for the first `min(count, candidates of the image)` entries
        of a row.

    Raises:
        ValueError: if `num` is less than 1, or an argument has another shape or kind.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import choose_hardest
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4]])
    >>> losses = ops.convert_to_tensor([[0.5, 2.0, 9.0, 1.0]])
    >>> candidates = ops.convert_to_tensor([[True, True, False, True]])
    >>> indices, _ = choose_hardest(keys, losses, candidates, num=2)
    >>> ops.convert_to_numpy(indices)[0].tolist()
    [1, 3]

    Source: Shrivastava et al., 2016, "Training Region-based Object Detectors with Online Hard
    Example Mining". Differs from it, as mmdetection does: no NMS among the candidates before the
    choice.
    """
    return choose_random(hardest_first(keys, losses), candidates, num, count)


def look_up(function: Callable[[int], int], count: Tensor, num: int) -> Tensor:
    """Applies a Python function of whole numbers 0..`num` to an int32 tensor of such numbers.

    Exact where arithmetic of floats in a graph would round differently from Python's.

    Args:
        function: Python function from int to int; its results are limited to 0..`num`.
        count: int32 tensor of any shape, in 0..`num`.
        num: int.

    Returns:
        int32 tensor of the shape of `count`, in 0..`num`.

    Raises:
        ValueError: if `count` holds no integers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.sampling import look_up
    >>> third = look_up(lambda n: n // 3, ops.convert_to_tensor([2, 9]), num=10)
    >>> ops.convert_to_numpy(third).tolist()
    [0, 3]
    """
    check_arguments({"count int": count})
    table = [min(max(function(n), 0), num) for n in range(num + 1)]
    return take(ops.convert_to_tensor(table, "int32"), count)


def _column(count, num):
    """Brings a wanted number, per image or common to all, to int32 `(B, 1)` or `(1, 1)`."""
    _check_at_least_one("num", num)
    count = num if count is None else count
    return ops.clip(ops.reshape(ops.cast(count, "int32"), (-1, 1)), 0, num)


def _scores(keys, order):
    """Joins what decides first (`order`, 0 = never, highest first) with the keys, in float32."""
    # XLA's top-k on a CPU is a hundred times faster for it than for int32. The gaps between orders
    # keep rounding (keys lose at most three of 24 bits) from mixing them.
    return ops.where(order > 0, ops.cast(2 * order - 1, "float32") - ops.cast(keys, "float32"), 0.0)


def _first(scores, num, count):
    """Returns `indices` and `chosen` of the `count` best positive scores of each row."""
    known = scores.shape[1]
    if not isinstance(known, int) or known < num:  # JAX has sizes that are symbols
        scores = ops.pad(scores, [[0, 0], [0, num]])
    values, indices = top_k(scores, num)
    wanted = ops.expand_dims(ops.arange(num, dtype="int32"), 0) < count
    chosen = ops.logical_and(values > 0, wanted)
    return ops.where(chosen, indices, 0), chosen


def _first_mask(scores, num, count):
    """Marks in `(B, N)` what `_first` chooses: all that comes no later than the last one chosen."""
    indices, chosen = _first(scores, num, count)
    taken = ops.sum(ops.cast(chosen, "int32"), axis=1, keepdims=True)
    last = take_rows(indices, ops.maximum(taken - 1, 0))
    value = take_rows(ops.pad(scores, [[0, 0], [0, 1]]), last)
    place = ops.expand_dims(ops.arange(ops.shape(scores)[1], dtype="int32"), 0)
    before = ops.logical_or(scores > value, ops.logical_and(scores == value, place <= last))
    return ops.logical_and(ops.logical_and(scores > 0, taken > 0), before)


def _bins(max_iou, candidates, lower, upper, num_bins):
    """Yields the mask `(B, N)` of each bin, half-open, of equal width from `lower` to `upper`."""
    if num_bins == 1:
        yield ops.ones_like(candidates)
        return
    if upper == "all":
        upper = ops.max(max_iou, axis=1, keepdims=True, initial=0.0)
    elif upper == "negatives":
        of_candidates = ops.where(candidates, max_iou, 0.0)
        # The hardest negative belongs to the last bin: the largest IoU is just below its end.
        upper = ops.max(of_candidates, axis=1, keepdims=True, initial=0.0) * (1 + 1e-6)
    edges = [lower + (upper - lower) * k / num_bins for k in range(num_bins + 1)]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        yield ops.logical_and(max_iou >= start, max_iou < end)


def _rank_in_group(keys, group):
    """Sorts rows by (group, key): order, sorted groups, rank in the group from 0, is_first."""
    by_key = ops.argsort(keys, axis=1)
    by_group = ops.argsort(take_rows(group, by_key), axis=1)  # a stable sort
    order = ops.cast(take_rows(by_key, by_group), "int32")
    group = take_rows(group, order)

    before = ops.pad(group, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    is_first = group != before
    place = ops.broadcast_to(ops.arange(ops.shape(group)[1], dtype="int32"), ops.shape(group))
    # The n-th group starts at the n-th smallest place of a first element.
    starts = ops.sort(ops.where(is_first, place, _NO_GROUP), axis=1)
    nth = ops.cumsum(ops.cast(is_first, "int32"), axis=1) - 1
    return order, group, place - take_rows(starts, nth), is_first


def _round_half_even(dividend, divisor):
    """Rounds the quotient of non-negative int32 tensors as Python's `round` does, exactly."""
    quotient = dividend // divisor
    twice = 2 * (dividend - quotient * divisor)
    odd_tie = ops.logical_and(twice == divisor, quotient % 2 == 1)
    return quotient + ops.cast(ops.logical_or(twice > divisor, odd_tie), "int32")


def _check_at_least_one(name, value):
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
