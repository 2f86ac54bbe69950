"""The positives and the negatives that the detector gets most wrong."""

from typing import Any

import keras

from libra_keras.functional.sampling import hardest_first
from libra_keras.samplers.sampler import RandomSampler, match_keys_losses
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class OHEMSampler(RandomSampler):
    """Chooses the positives and the negatives of largest loss: online hard example mining.

    Unlike every other sampler it needs the losses of all candidates before it chooses. A head that
    finds `needs_losses` true computes them in a pass of its own, without gradient; `BoxHead` does.
    That makes a training step more expensive. It cannot be a part of a `CombinedSampler`.

    Args:
        num: int, the number of rows per image.
        positive_fraction: float in [0, 1], the largest share of positives.
        max_negatives_per_positive: `None` (no limit) or float >= 0, see `Sampler`.

    Call arguments:
        match, keys: as for `Sampler`, or tensors in place of the `Match`, as there. The keys decide
            between equal losses.
        losses: float tensor `(B, N)`, the classification loss of each box, as background where it
            is negative. NaN counts as infinite.

    Returns:
        As `Sampler`; positives and negatives each come hardest first.

    Raises:
        ValueError: if an argument is out of range, or a call argument has another shape or kind.
        TypeError: if it is called without `losses`.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.matching import match
    >>> from libra_keras.samplers import OHEMSampler
    >>> found = match([[[0.8], [0.9], [0.1], [0.0], [0.2]]], [[True]], 0.5, 0.5)
    >>> losses = ops.convert_to_tensor([[0.3, 2.0, 0.1, 4.0, 0.6]])
    >>> keys = ops.convert_to_tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    >>> sampler = OHEMSampler(num=3, positive_fraction=0.4)
    >>> indices, _, _ = sampler(found, keys, losses)
    >>> ops.convert_to_numpy(indices)[0].tolist()
    [1, 3, 4]

    Reference: [Shrivastava et al., 2016](https://arxiv.org/abs/1604.03540), and `OHEMSampler` of
    mmdetection. As there, and unlike the paper, the share of positives is limited, and no NMS
    thins the candidates out.
    """

    needs_losses = True

    def __init__(
        self,
        num: int,
        positive_fraction: float,
        max_negatives_per_positive: float | None = None,
    ) -> None:
        super().__init__(num, positive_fraction, max_negatives_per_positive)

    def __call__(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
        match, keys, losses = match_keys_losses(*arguments, **named)
        if losses is None:
            raise TypeError(
                "`OHEMSampler` must be called with the `losses` of all boxes. Give it to a "
                "`BoxHead`, which computes them; heads of the first stage do not."
            )
        return super().__call__(match, hardest_first(keys, losses))
