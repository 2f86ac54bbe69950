"""Choosing the candidates that a detector gets most wrong."""

from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.sampling import choose_random

_STEP = 2.0**-24  # keys are multiples of it


def hardest_first(keys, losses):
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
    >>> from libra_keras.functional.hard_examples import hardest_first
    >>> keys = ops.convert_to_tensor([[0.4, 0.3, 0.2, 0.1]])
    >>> ranks = hardest_first(keys, ops.convert_to_tensor([[5.0, 1.0, 7.0, 5.0]])) * 2**24
    >>> ops.convert_to_numpy(ranks)[0].tolist()
    [2.0, 3.0, 0.0, 1.0]

    Source: ours.
    """
    check_arguments({"keys (B, N) float": keys, "losses (B, N)": losses})
    losses = ops.cast(losses, "float32")
    losses = ops.where(ops.isnan(losses), float("inf"), losses)
    by_key = ops.argsort(keys, axis=1)
    by_loss = ops.argsort(-ops.take_along_axis(losses, by_key, axis=1), axis=1)  # a stable sort
    order = ops.take_along_axis(by_key, by_loss, axis=1)
    return ops.cast(ops.argsort(order, axis=1), "float32") * _STEP  # the inverse permutation


def choose_hardest(keys, losses, candidates, num, count=None):
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
    >>> from libra_keras.functional.hard_examples import choose_hardest
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4]])
    >>> losses = ops.convert_to_tensor([[0.5, 2.0, 9.0, 1.0]])
    >>> candidates = ops.convert_to_tensor([[True, True, False, True]])
    >>> indices, _ = choose_hardest(keys, losses, candidates, num=2)
    >>> ops.convert_to_numpy(indices)[0].tolist()
    [1, 3]

    Source: Shrivastava et al., 2016, "Training Region-based Object Detectors with Online Hard
    Example Mining". Differs from it: no NMS among the candidates before the choice, as in
    mmdetection.
    """
    return choose_random(hardest_first(keys, losses), candidates, num, count)
